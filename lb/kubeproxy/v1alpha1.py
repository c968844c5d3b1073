"""`KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`: its fields, and their defaults.

Values are as written: addresses and CIDRs are text, checked in `lb.kubeproxy.validate`. A field
that is absent, null or zero takes kube-proxy's default, where zero has no meaning of its own.
"""

from __future__ import annotations

import msgspec
from msgspec import field
from msgspec.structs import replace

from lb.address import Family, family, parse
from lb.errors import BadAddress
from lb.kubeproxy.duration import Duration

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"
HEALTHZ_PORT, METRICS_PORT = 10256, 10249

_SECOND = 10**9
_SYNC, _MIN_SYNC = Duration(30 * _SECOND), Duration(_SECOND)
_NONE = Duration(0)


class Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Base of every struct here: names as in the file."""


class ClientConnection(Part, frozen=True):
    """How to talk to the API server. `qps`: requests a second."""

    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    burst: int = 0
    qps: float = 0.0


class Module(Part, frozen=True):
    """`logging.vmodule[]`."""

    file_pattern: str = ""
    verbosity: int = 0


class LogFormat(Part, frozen=True):
    """`logging.options.text` and `logging.options.json`."""

    split_stream: bool = False
    info_buffer_size: int | str = 0


class LogOptions(Part, frozen=True):
    """`logging.options`."""

    text: LogFormat = LogFormat()
    json: LogFormat = LogFormat()


class Logging(Part, frozen=True):
    """`flush_frequency`: nanoseconds as a number, or a duration as text."""

    format: str = ""
    flush_frequency: int | str = 0
    verbosity: int = 0
    vmodule: tuple[Module, ...] = ()
    options: LogOptions = LogOptions()


class IPTables(Part, frozen=True):
    """`iptables`."""

    masquerade_bit: int = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period: Duration = _NONE
    min_sync_period: Duration = _NONE


class NFTables(Part, frozen=True):
    """`nftables`."""

    masquerade_bit: int = 14
    masquerade_all: bool = False
    sync_period: Duration = _NONE
    min_sync_period: Duration = _NONE


class IPVS(Part, frozen=True):
    """`ipvs`."""

    sync_period: Duration = _NONE
    min_sync_period: Duration = _NONE
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] = field(name="excludeCIDRs", default=())
    strict_arp: bool = field(name="strictARP", default=False)
    tcp_timeout: Duration = _NONE
    tcp_fin_timeout: Duration = _NONE
    udp_timeout: Duration = _NONE


class Conntrack(Part, frozen=True):
    """`conntrack`."""

    max_per_core: int = 32768
    min: int = 131072
    tcp_established_timeout: Duration = Duration(24 * 3600 * _SECOND)
    tcp_close_wait_timeout: Duration = Duration(3600 * _SECOND)
    tcp_be_liberal: bool = False
    udp_timeout: Duration = _NONE
    udp_stream_timeout: Duration = _NONE


class Winkernel(Part, frozen=True):
    """`winkernel`: read by nobody on Linux."""

    network_name: str = ""
    source_vip: str = ""
    enable_dsr: bool = field(name="enableDSR", default=False)
    root_hns_endpoint_name: str = ""
    forward_health_check_vip: bool = False


class DetectLocal(Part, frozen=True):
    """`detectLocal`."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


class Configuration(Part, frozen=True):
    """The whole. A fresh one has no defaults that depend on other fields: see `defaulted`."""

    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] = {}
    client_connection: ClientConnection = ClientConnection()
    logging: Logging = Logging()
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: IPTables = IPTables()
    ipvs: IPVS = IPVS()
    nftables: NFTables = NFTables()
    winkernel: Winkernel = Winkernel()
    detect_local_mode: str = ""
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = field(name="clusterCIDR", default="")
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int = -999
    conntrack: Conntrack = Conntrack()
    config_sync_period: Duration = _NONE
    port_range: str = ""
    windows_run_as_service: bool = False

    @property
    def technology(self) -> IPTables | NFTables | IPVS:
        """The part that belongs to the mode."""
        match self.mode:
            case "nftables":
                return self.nftables
            case "ipvs":
                return self.ipvs
            case _:
                return self.iptables

    @property
    def masquerade_all(self) -> bool:
        """As the mode has it; ipvs mode reads the field of iptables."""
        part = self.technology
        return self.iptables.masquerade_all if isinstance(part, IPVS) else part.masquerade_all


def defaulted(given: Configuration) -> Configuration:
    """The same with kube-proxy's defaults where a field says nothing."""
    bind = given.bind_address or "0.0.0.0"
    everywhere, loopback = ("0.0.0.0", "127.0.0.1") if _is_v4(bind) else ("[::]", "[::1]")
    client = given.client_connection
    flush = given.logging.flush_frequency or 5 * _SECOND
    mode = given.mode or "iptables"
    primary = ("primary",) if mode == "nftables" else ()
    return replace(
        given,
        client_connection=replace(
            client,
            content_type=client.content_type or "application/vnd.kubernetes.protobuf",
            qps=client.qps or 5.0,
            burst=client.burst or 10,
        ),
        logging=replace(
            given.logging, format=given.logging.format or "text", flush_frequency=flush
        ),
        bind_address=bind,
        healthz_bind_address=with_port(given.healthz_bind_address or everywhere, HEALTHZ_PORT),
        metrics_bind_address=with_port(given.metrics_bind_address or loopback, METRICS_PORT),
        mode=mode,
        iptables=replace(
            given.iptables,
            sync_period=given.iptables.sync_period or _SYNC,
            min_sync_period=given.iptables.min_sync_period or _MIN_SYNC,
        ),
        ipvs=replace(given.ipvs, sync_period=given.ipvs.sync_period or _SYNC),
        nftables=replace(
            given.nftables,
            sync_period=given.nftables.sync_period or _SYNC,
            min_sync_period=given.nftables.min_sync_period or _MIN_SYNC,
        ),
        detect_local_mode=given.detect_local_mode or "ClusterCIDR",
        node_port_addresses=given.node_port_addresses or primary,
        config_sync_period=given.config_sync_period or Duration(900 * _SECOND),
    )


def with_port(address: str, port: int) -> str:
    """An address alone gets the port; all else stays, for `validate` to judge."""
    try:
        which = family(parse(address.strip("[]")))
    except BadAddress:
        return address
    return f"{address}:{port}" if which is Family.IPV4 else f"[{address.strip('[]')}]:{port}"


def _is_v4(address: str) -> bool:
    try:
        return family(parse(address)) is Family.IPV4
    except BadAddress:
        return False
