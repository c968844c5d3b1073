"""The settings of an agent: one frozen value, read once from flags and file.

Not for parsing a command line (`lb.cli`): only for what the values mean and which are good.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lb.address import Address, family, parse, show
from lb.errors import BadInput
from lb.local import Detection
from lb.model import Algorithm, Dispatch, Way
from lb.tables import FLAGS, NUMBERED, PER_ENTRY, SIZES

RING_SLOTS = 16381
BACKEND_SLOTS = 100
"""Of a Maglev ring, for each backend at least."""
"""The largest Maglev ring, in slots, unless told otherwise."""
REPAIR_SECONDS = 10.0
"""Between two looks for what others took off or altered."""
_SHORTEST, _LONGEST = 251, 131071
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


class Listen(NamedTuple):
    """Where to listen: an address as text, and a port."""

    address: str
    port: int


def listen(text: str, flag: str) -> Listen | None:
    """`ADDRESS:PORT` or `[ADDRESS]:PORT`; None for "" and "0", which switch it off.

    Raises BadInput.
    """
    if text in ("", "0"):
        return None
    address, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise BadInput(f"{flag}: {text!r} is not ADDRESS:PORT")
    return Listen(show(parse(address.strip("[]"))), int(port))


def page_address(text: str) -> Listen | None:
    """As `listen`, on loopback only, since the page has no password. Raises BadInput."""
    at = listen(text, "--page-bind-address")
    if at is not None and not ipaddress.ip_address(at.address).is_loopback:
        raise BadInput(
            f"--page-bind-address: {at.address} is not on loopback, and the page has no password"
        )
    return at


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an agent is told."""

    manifests: Path | None = None
    """Directory of manifests; None: a Kubernetes API server."""
    kubeconfig: str = ""
    master: str = ""
    node_name: str
    node_ips: tuple[Address, ...] = ()
    """Empty: from the Node object, else from the devices with a default route."""
    bind_address: Address | None = None
    """kube-proxy's: in its family, the node's own address in place of the Node object's."""
    nodeport_addresses: tuple[str, ...] = ()
    proxy_mode: str = ""
    """kube-proxy's word; decides only defaults where its modes differ."""
    localhost_nodeports: bool = True
    metrics: Listen | None = None
    repair_seconds: float = REPAIR_SECONDS
    """0: never."""
    takes_over: bool = False
    """Are the rules that kube-proxy left removed once all is applied?"""
    """Where metrics are served; None: nowhere."""
    page: Listen | None = None
    """Where the page is served, on loopback; None: nowhere."""
    metrics_series: int = 10_000
    """Services and backends with counters of their own among the metrics."""
    healthz: Listen | None = None
    """Where `/healthz` and `/livez` are served; None: nowhere."""
    must_listen: bool = False
    """End the agent where one of these two addresses cannot be had."""
    stale_seconds: float = 60.0
    """How old a change that is not applied may get before the node is not healthy."""
    detection: Detection = Detection()
    """How packets of this cluster's pods are told from others."""
    masquerade_all: bool = False
    """Traffic to cluster IPs gets this node's address."""
    external_ips: bool = True
    """Are `spec.externalIPs` served? (Feature gate AllowServiceExternalIPs, KEP-5707)."""
    configuration: dict[str, Any] = {}
    """The KubeProxyConfiguration in force, as `/configz` shows it."""
    devices: tuple[str, ...] = ()
    """Where traffic from outside enters; empty: devices with a default route."""
    pod_devices: tuple[str, ...] = ("auto",)
    """Patterns of the names of devices that lead to pods, or `auto`; empty: none."""
    forwarding: Way = Way.SNAT
    """How a backend of another node is reached, where the service does not say."""
    dispatch: Dispatch = Dispatch.IPIP
    """How DSR tells that node what was asked."""
    xdp: str = "auto"
    """`auto`, `native`, `generic` or `off`."""
    algorithm: Algorithm = Algorithm.MAGLEV
    """Of services without an annotation for it."""
    cgroup: Path
    bpffs: Path
    program_cache: Path | None = None
    """What the compiler made, for the next start."""
    api_socket: Path
    ring_slots: int = RING_SLOTS
    """The largest Maglev ring: a prime."""
    backend_slots: int = BACKEND_SLOTS
    """Slots of a Maglev ring for each backend, while the largest ring has room."""
    conntrack: dict[str, int] = {}
    """Settings of connection tracking that somebody asked for, by name."""
    host_ports: bool = False
    """Are `hostPort`s of this node's pods served?"""
    bandwidth: str = "off"
    """Pod bandwidth limits: auto, on, off."""
    bandwidth_scope: str = "node"
    pod_bbr: bool = False
    """What they hold for: `node`, what leaves it; `all`, also between its pods."""
    sizes: dict[str, int] = msgspec.field(default_factory=lambda: table_sizes({}))
    """Length of each table in entries; of slots in lines of 16, of rings in pairs."""

    @property
    def knows_all_pods(self) -> bool:
        """Does every node know the cluster's pods? Of an API server each reads its own node's."""
        return self.manifests is not None


def node_name(given: str, host_name: str) -> str:
    """A node's name as Kubernetes writes it. Raises BadInput."""
    name = (given or host_name).strip().lower()
    if not name:
        raise BadInput("--hostname-override: a node name cannot be blank")
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise BadInput(f"--hostname-override: {name!r} is no node name: give a DNS subdomain")
    return name


def node_ips(text: str) -> tuple[Address, ...]:
    """`IP` or `IP,IP6`. Raises BadAddress, BadInput."""
    found = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    if len({family(address) for address in found}) < len(found):
        raise BadInput("--node-ip: one address, or one of each family")
    return found


def pod_devices(text: str) -> tuple[str, ...]:
    """The patterns of `PATTERN,...`; none for "" and "off"."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    return () if found == ("off",) else found


def ring_slots(count: int) -> int:
    """The largest Maglev ring that is allowed, in slots: a prime. Raises BadInput."""
    if _SHORTEST <= count <= _LONGEST and _is_prime(count):
        return count
    near = min(max(count, _SHORTEST), _LONGEST)
    below = next(one for one in range(near, 0, -1) if _is_prime(one))
    above = next(one for one in range(near, _LONGEST + 1) if _is_prime(one))
    good = " or ".join(str(one) for one in sorted({below, above}))
    raise BadInput(
        f"--maglev-table-size: {count} is no prime within {_SHORTEST} and {_LONGEST}; take {good}"
    )


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % one for one in range(2, math.isqrt(number) + 1))


def cgroup2_root(mounts: str) -> Path:
    """Where cgroup2 is mounted, by the text of /proc/self/mounts. Raises BadInput."""
    for line in mounts.splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), target))
    raise BadInput("no cgroup2 is mounted: mount one, or name a folder of one with --cgroup")


def table_sizes(given: Mapping[str, int]) -> dict[str, int]:
    """The lengths of all tables for the room given, else the default room. Raises BadInput.

    `given` counts as the flags do: entries, and slots and rings in slots.
    """
    fits = dict(SIZES)
    for name, count in given.items():
        if not 16 <= count <= 1 << 24:
            flag = FLAGS.get(name, f"--max-{name}")
            raise BadInput(f"{flag}: {count} is not within 16 and {1 << 24}")
        fits[name] = -(-count // PER_ENTRY.get(name, 1))
    fits["loads"], fits["vips"] = fits["backends"], fits["frontends"]
    # Beside the node's own there, every service's cluster IP.
    fits["addresses"] += fits["services"] - SIZES["services"]
    fits["counters"] = fits["services"]
    fits["limit_names"] = fits["limits"]
    # A service has a name in each family, and nodes and zones have theirs.
    fits["names"] = fits["services"] + 32768
    return {name: count + (name in NUMBERED) for name, count in fits.items()}
