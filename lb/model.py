"""What a cluster asks for, as frozen values: valid once built, never parsed again.

Sources build these from Kubernetes objects; the planner reads them; nothing here knows a map,
a clock or a file. Addresses are 16 bytes (`lb.address`), ports are host-order integers.
Structs are `msgspec` ones without garbage collector tracking: at 100,000 endpoints a
collector that walks them would cost more than the planning.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple, NewType

import msgspec

from lb.address import Address, Family, Prefix

Port = NewType("Port", int)


class Protocol(IntEnum):
    """An L4 protocol; the value is its IP protocol number."""

    TCP = 6
    UDP = 17
    SCTP = 132


class Policy(Enum):
    """A traffic policy: all endpoints, or only those on this node."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Algorithm(StrEnum):
    """How connections from outside choose among the backends."""

    MAGLEV = "maglev"
    RANDOM = "random"


HEAVIEST = 100
"""The largest weight of a backend; one without a weight has 1."""

Weights = Mapping[bytes | int, int]
"""By an endpoint's address, or by the CRC-32 of its pod's name: names would take much memory."""


class ServiceName(NamedTuple):
    """A Service object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PortName(NamedTuple):
    """One port of a Service: the unit that kube-proxy, and everything here, keys its state by."""

    service: ServiceName
    port: str
    protocol: Protocol

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.service}{port}/{self.protocol.name}"


class Way(StrEnum):
    """How a backend of another node is reached: `--forwarding`, `tidegate.io/forwarding`."""

    SNAT = "snat"
    DSR = "dsr"
    HYBRID = "hybrid"
    """DSR for TCP."""


class Dispatch(StrEnum):
    """How DSR tells the backend's node what was asked: `--dsr-dispatch`."""

    IPIP = "ipip"
    """A second IP header around the packet."""
    OPT = "opt"
    """An IPv4 option, or an IPv6 destination option."""


class ServicePort(msgspec.Struct, frozen=True, gc=False):
    """`spec.ports[]`. `node_port` 0: none."""

    name: str
    protocol: Protocol
    port: int
    node_port: int = 0


class Service(msgspec.Struct, frozen=True, gc=False):
    """A Service that is to be proxied; headless and ExternalName ones never become this.

    `cluster_ips` has an entry for each family in which the service exists at all.
    `source_ranges` apply to load balancer addresses only; empty means open.
    `affinity_seconds` 0: no session affinity.
    """

    name: ServiceName
    ports: tuple[ServicePort, ...]
    cluster_ips: Mapping[Family, Address]
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    internal_policy: Policy = Policy.CLUSTER
    external_policy: Policy = Policy.CLUSTER
    affinity_seconds: int = 0
    health_check_node_port: int = 0
    algorithm: Algorithm | None = None
    """None: as the node's own flag says."""
    weights: Weights = {}
    forwarding: Way | None = None
    """None: as the node has it."""
    dispatch: Dispatch | None = None
    """None: as the node has it."""
    annotations: Mapping[str, str] = {}
    """Only those with the prefix `tidegate.io/`."""


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """`endpoints[]` of a slice, conditions with their defaults resolved."""

    address: Address
    node: str = ""
    zone: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()


class SlicePort(NamedTuple):
    """`ports[]` of a slice: the link to a service port is name and protocol, never the number."""

    name: str
    protocol: Protocol
    port: int


class SliceName(NamedTuple):
    """An EndpointSlice object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class EndpointSlice(msgspec.Struct, frozen=True, gc=False):
    """An EndpointSlice of one family that belongs to a service."""

    name: SliceName
    service: ServiceName
    family: Family
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]
    trigger_time: float = 0.0
    """Seconds since the epoch from `endpoints.kubernetes.io/last-change-trigger-time`; 0: unknown.

    Not part of the content: compare slices with `same_content`."""
    pods: bytes = b""
    """The CRC-32 of each endpoint's pod's name, 0 for none, 4 bytes each; empty: none has one."""
    pod_names: str = ""
    """Names of the endpoints' pods, a line each, in their order; for people only, and in one text
    since a string for each would be 5 MB more at 100,000 endpoints."""

    def same_content(self, other: EndpointSlice) -> bool:
        """Equal in everything that decides where traffic goes."""
        return (self.service, self.family, self.ports, self.endpoints, self.pods) == (
            other.service,
            other.family,
            other.ports,
            other.endpoints,
            other.pods,
        )

    def weighed(self, weights: Weights) -> dict[Address, int]:
        """The weights of those endpoints that have one, by address or by pod."""
        names = memoryview(self.pods).cast("I") if self.pods else bytes(len(self.endpoints))
        found = {}
        for endpoint, name in zip(self.endpoints, names, strict=True):
            weight = weights.get(endpoint.address) or (weights.get(name) if name else None)
            if weight:
                found[endpoint.address] = weight
        return found


class Trigger(NamedTuple):
    """When what a slice of a service tells of happened, in seconds since the epoch."""

    service: ServiceName
    family: Family
    time: float


class Node(msgspec.Struct, frozen=True, gc=False):
    """A Node object, as far as this node's agent cares."""

    name: str
    zone: str = ""
    addresses: tuple[Address, ...] = ()
    """InternalIPs, then ExternalIPs, in the object's order."""
    pod_cidrs: tuple[Prefix, ...] = ()
    leaving: bool = False
    """Being deleted, or about to be by the cluster autoscaler: load balancers should leave it."""


class ServiceCIDR(msgspec.Struct, frozen=True, gc=False):
    """A ServiceCIDR object: where cluster IPs are taken from."""

    name: str
    cidrs: tuple[Prefix, ...] = ()


class HostPort(NamedTuple):
    """`ports[]` of a container with a `hostPort`. `address`: its `hostIP`, None for any."""

    port: int
    target: int
    protocol: Protocol
    address: Address | None = None


class Pod(msgspec.Struct, frozen=True, gc=False):
    """A Pod, as far as anything here goes; one that has ended never becomes this."""

    name: str
    node: str = ""
    addresses: tuple[Address, ...] = ()
    host_network: bool = False
    egress: str | None = None
    """The text of its annotation, whatever it is; None: it has none."""
    ingress: str | None = None
    uid: str = ""
    """By which the kubelet names its cgroup."""
    host_ports: tuple[HostPort, ...] = ()
    """Of its containers; meaningless where `host_network`."""
    weight: int = 0
    """Its own annotation's; 0: it has none. A Service's list wins."""


class Refused(NamedTuple):
    """An object, or a part of one, that is not programmed, and why.

    `subject` names the object as a user would look for it: `Service default/web`,
    `services.yaml:12`. `wrong` is False for what Kubernetes itself says to leave alone
    (headless, ExternalName, another proxy's): shown on request, never a fault.
    """

    subject: str
    reason: str
    wrong: bool = True


Object = Service | EndpointSlice | Node | ServiceCIDR | Pod


class Kind(StrEnum):
    """The kinds of object that sources deliver; as text, since keys are hashed by the thousand."""

    SERVICE = "Service"
    SLICE = "EndpointSlice"
    NODE = "Node"
    SERVICE_CIDR = "ServiceCIDR"
    POD = "Pod"


class Key(NamedTuple):
    """Names one object within its source. `namespace` is empty for a Node and a ServiceCIDR."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.namespace + '/' if self.namespace else ''}{self.name}"


class Change(NamedTuple):
    """One object is now `value`; None: gone, or not to be proxied. `refused`: what was left out.

    Applying a change twice is the same as once. A change for an object that was never seen is
    legal in both directions (a slice before its service, a delete for nothing).
    """

    key: Key
    value: Object | None
    refused: tuple[Refused, ...] = ()


ALL_NODES = Change(Key(Kind.NODE, "", ""), None)
"""Says that a source has delivered every Node: until then no backend's node is known to know this
one, so none is handed a packet to answer itself."""
ALL_PODS = Change(Key(Kind.POD, "", ""), None)
"""Says that an API server has delivered every pod of this node: until then no limit and no host
port may go.

To all others each of these is the end of an object that never was."""
