"""kube-proxy's flags, and the fields of the configuration that each stands for.

A command line becomes the same plain values that a file holds, and then goes the same way. Not for
parsing a command line: values come as click has read them, text where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from lb.errors import BadInput
from lb.kubeproxy import duration

T = TypeVar("T")


class Kind(Enum):
    """What a flag's value is."""

    TEXT = "TEXT"
    BOOL = "BOOL"
    INT = "INT"
    NUMBER = "NUMBER"
    SPAN = "DURATION"
    LIST = "TEXT,..."


class Flag(NamedTuple):
    """`path`: the field, with dots. `*` in it is nftables in that mode, else iptables.

    `~` is the same, and nothing in mode ipvs.
    """

    name: str
    path: str
    kind: Kind = Kind.TEXT


FLAGS = (
    Flag("kubeconfig", "clientConnection.kubeconfig"),
    Flag("kube-api-content-type", "clientConnection.contentType"),
    Flag("kube-api-qps", "clientConnection.qps", Kind.NUMBER),
    Flag("kube-api-burst", "clientConnection.burst", Kind.INT),
    Flag("bind-address", "bindAddress"),
    Flag("healthz-bind-address", "healthzBindAddress"),
    Flag("metrics-bind-address", "metricsBindAddress"),
    Flag("bind-address-hard-fail", "bindAddressHardFail", Kind.BOOL),
    Flag("profiling", "enableProfiling", Kind.BOOL),
    Flag("show-hidden-metrics-for-version", "showHiddenMetricsForVersion"),
    Flag("proxy-mode", "mode"),
    Flag("iptables-masquerade-bit", "iptables.masqueradeBit", Kind.INT),
    Flag("masquerade-all", "*.masqueradeAll", Kind.BOOL),
    Flag("iptables-localhost-nodeports", "iptables.localhostNodePorts", Kind.BOOL),
    Flag("iptables-sync-period", "~.syncPeriod", Kind.SPAN),
    Flag("iptables-min-sync-period", "~.minSyncPeriod", Kind.SPAN),
    Flag("ipvs-sync-period", "ipvs.syncPeriod", Kind.SPAN),
    Flag("ipvs-min-sync-period", "ipvs.minSyncPeriod", Kind.SPAN),
    Flag("ipvs-scheduler", "ipvs.scheduler"),
    Flag("ipvs-exclude-cidrs", "ipvs.excludeCIDRs", Kind.LIST),
    Flag("ipvs-strict-arp", "ipvs.strictARP", Kind.BOOL),
    Flag("ipvs-tcp-timeout", "ipvs.tcpTimeout", Kind.SPAN),
    Flag("ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout", Kind.SPAN),
    Flag("ipvs-udp-timeout", "ipvs.udpTimeout", Kind.SPAN),
    Flag("detect-local-mode", "detectLocalMode"),
    Flag("cluster-cidr", "clusterCIDR"),
    Flag("pod-bridge-interface", "detectLocal.bridgeInterface"),
    Flag("pod-interface-name-prefix", "detectLocal.interfaceNamePrefix"),
    Flag("nodeport-addresses", "nodePortAddresses", Kind.LIST),
    Flag("oom-score-adj", "oomScoreAdj", Kind.INT),
    Flag("conntrack-max-per-core", "conntrack.maxPerCore", Kind.INT),
    Flag("conntrack-min", "conntrack.min", Kind.INT),
    Flag("conntrack-tcp-timeout-established", "conntrack.tcpEstablishedTimeout", Kind.SPAN),
    Flag("conntrack-tcp-timeout-close-wait", "conntrack.tcpCloseWaitTimeout", Kind.SPAN),
    Flag("conntrack-tcp-be-liberal", "conntrack.tcpBeLiberal", Kind.BOOL),
    Flag("conntrack-udp-timeout", "conntrack.udpTimeout", Kind.SPAN),
    Flag("conntrack-udp-timeout-stream", "conntrack.udpStreamTimeout", Kind.SPAN),
    Flag("config-sync-period", "configSyncPeriod", Kind.SPAN),
    Flag("feature-gates", "featureGates", Kind.LIST),
)  # fmt: skip
"""All flags that stand for a field, in kube-proxy's order."""

LOGGING = (
    Flag("logging-format", "logging.format"),
    Flag("log-flush-frequency", "logging.flushFrequency", Kind.SPAN),
    Flag("log-text-split-stream", "logging.options.text.splitStream", Kind.BOOL),
    Flag("log-text-info-buffer-size", "logging.options.text.infoBufferSize"),
    Flag("log-json-split-stream", "logging.options.json.splitStream", Kind.BOOL),
    Flag("log-json-info-buffer-size", "logging.options.json.infoBufferSize"),
    Flag("vmodule", "logging.vmodule", Kind.LIST),
    Flag("v", "logging.verbosity", Kind.INT),
)  # fmt: skip
"""Those that win over a configuration file."""

DEPRECATED = {"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"}
"""Port flags of old, and what to use in their place; 0 switches off."""

GONE = (
    "add-dir-header", "alsologtostderr", "log-backtrace-at", "log-dir", "log-file",
    "log-file-max-size", "logtostderr", "one-output", "skip-headers", "skip-log-headers",
    "stderrthreshold", "proxy-port-range", "udp-timeout", "cleanup-ipvs", "resource-container",
)  # fmt: skip
"""Flags that kube-proxy itself once had; taken, so that old command lines start."""

HELP = {
    "kubeconfig": "How to reach the API server.  [default: in-cluster]",
    "bind-address": "The node's primary address, whatever its Node object says.",
    "healthz-bind-address":
    "Where load balancers ask after this node's health; empty: nowhere.  [default: 0.0.0.0:10256]",
    "metrics-bind-address": "Where Prometheus metrics are served; empty: nowhere.  [default: "
    "127.0.0.1:10249]",
    "bind-address-hard-fail": "End where one of the two cannot be served.",
    "proxy-mode": "Whose defaults to follow where kube-proxy's modes differ.  [default: iptables]",
    "masquerade-all": "Give all traffic to cluster IPs this node's address.",
    "iptables-localhost-nodeports":
    "Node ports on 127.0.0.1 for the node's own processes.  [default: True]",
    "detect-local-mode": "How traffic of this cluster's pods is known: ClusterCIDR, NodeCIDR, "
    "BridgeInterface, InterfaceNamePrefix.  [default: ClusterCIDR]",
    "cluster-cidr": "The pods' addresses: a CIDR, or one of each family.",
    "pod-bridge-interface": "The bridge of BridgeInterface.",
    "pod-interface-name-prefix": "The prefix of InterfaceNamePrefix.",
    "nodeport-addresses":
    "Addresses that accept node ports: CIDRs, or `primary`.  [default: as --proxy-mode has it]",
    "feature-gates": "NAME=true|false,... of Kubernetes' feature gates.",
    "logging-format": "How to log: text or json.  [default: text]",
    "v": "How much to log, as Kubernetes counts: 2 each change, 4 details, 6 also libraries.",
}  # fmt: skip
"""Of the flags that stand in the help text; the others are taken, and rarely of use."""

_ONLY_IPVS = ("ipvs.syncPeriod", "ipvs.minSyncPeriod")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def fields(given: Mapping[str, Any], flags: Sequence[Flag] = FLAGS) -> dict[str, Any]:
    """The flags given, by name without `--`, as a file would hold them. Raises BadInput.

    A sync period of another mode counts for nothing, as in kube-proxy.
    """
    mode = str(given.get("proxy-mode") or "iptables")
    found: dict[str, Any] = {}
    for flag in flags:
        path = _path(flag.path, mode)
        if flag.name in given and path:
            put(found, path, _value(flag, given[flag.name]))
    return found


def put(plain: dict[str, Any], path: str, value: object) -> None:
    """Set the field at a path of names with dots."""
    *above, last = path.split(".")
    for name in above:
        plain = plain.setdefault(name, {})
    plain[last] = value


def flag_of(path: str) -> str:
    """The flag that stands for a field; the field itself where none does."""
    first, _, rest = path.partition(".")
    technologies = [f"*.{rest}", f"~.{rest}"] if first in ("iptables", "nftables") else []
    for flag in (*FLAGS, *LOGGING):
        if flag.path in (path, *technologies):
            return f"--{flag.name}"
    return path


def _path(path: str, mode: str) -> str:
    """The field in this mode; "": the flag belongs to another."""
    first, _, rest = path.partition(".")
    if path in _ONLY_IPVS or first == "~":
        mine = (mode == "ipvs") == (first == "ipvs")
        if not mine:
            return ""
    if first in ("*", "~"):
        return f"{'nftables' if mode == 'nftables' else 'iptables'}.{rest}"
    return path


def _value(flag: Flag, value: Any) -> Any:
    """What a file would hold in place of the flag's value. Raises BadInput."""
    try:
        if flag.kind is Kind.SPAN:
            duration.parse(str(value))
        if flag.kind is not Kind.LIST:
            return value
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        match flag.name:
            case "feature-gates":
                return dict(_pair(part, _bool) for part in parts)
            case "vmodule":
                pairs = [_pair(part, int) for part in parts]
                return [{"filePattern": name, "verbosity": level} for name, level in pairs]
            case _:
                return parts
    except (BadInput, ValueError) as error:
        raise BadInput(f"--{flag.name}: {error}") from error


def _pair(part: str, read: Callable[[str], T]) -> tuple[str, T]:
    name, equals, text = part.partition("=")
    try:
        if equals:
            return name.strip(), read(text.strip())
    except ValueError:
        pass
    raise BadInput(f"{part!r} is not NAME=VALUE")


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)
