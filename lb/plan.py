"""What the maps should say of one service on this node: a pure function, one service at a time.

A change plans again only the services it touches, so its cost does not grow with the cluster.
Nothing here has an id yet: ids, and where lists lie in memory, are `lb.placing`'s. Not for
the rules of which endpoint may serve (`lb.eligible`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from bpf.layout import (
    BackendFlag,
    BackendState,
    Empty,
    FrontendFlag,
    FrontendKey,
    FrontendType,
    Scope,
    View,
)
from lb.address import ANY, Address, Family, Prefix, family
from lb.eligible import Candidate, Selection, candidates, select
from lb.model import (
    Algorithm,
    Dispatch,
    EndpointSlice,
    Policy,
    PortName,
    Protocol,
    Service,
    ServiceName,
    ServicePort,
    Way,
)


class Unit(NamedTuple):
    """One port of a service in one family: what has a service id, and its own affinity."""

    service: ServiceName
    port: str
    protocol: Protocol
    family: Family

    def __str__(self) -> str:
        return f"{PortName(self.service, self.port, self.protocol)} ({self.family.label})"


class Here(msgspec.Struct, frozen=True):
    """This node, as far as plans depend on it."""

    name: str
    zone: str = ""
    addresses: tuple[Address, ...] = ()
    algorithm: Algorithm = Algorithm.MAGLEV
    """Of services that name none."""
    forwarding: Way = Way.SNAT
    """How a backend of another node is reached, where the service does not say."""
    dispatch: Dispatch = Dispatch.IPIP
    """How DSR tells its node what was asked, where the service does not say."""
    knows_nodes: bool = True
    """Without all nodes' addresses there is no DSR: SNAT serves meanwhile."""


class Frontend(NamedTuple):
    """An address that a unit answers to. `key` is the packed key of the map."""

    key: bytes
    type: FrontendType
    flags: int = 0


class Backend(msgspec.Struct, frozen=True, gc=False):
    """An endpoint of a unit.

    `views`: bit n set where it may be chosen in view n; and `BackendFlag.HERE`.
    """

    address: Address
    port: int
    state: BackendState
    views: int
    node: str
    zone: str
    weight: int = 1
    """How often it stands in each list; 1 for one in no list."""


VIEWS = (1 << len(View)) - 1
"""The bits of `Backend.views` that are views."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """All that the maps should hold of one unit.

    `backends` are in the order of address and port; those without any view keep their existing
    flows and get no new ones. `empty` says, by view, what a view without backends does, and
    REFUSE where it has some.
    """

    unit: Unit
    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    empty: tuple[Empty, Empty, Empty]
    affinity_seconds: int
    ranges: tuple[Prefix, ...]
    ring: bool = False
    """Connections from outside are spread by a Maglev ring, and not at random over the list."""

    def drops(self) -> bool:
        """Can a socket of this unit meet silence? Then `guard` has to stand ready."""
        return bool(self.ranges) or Empty.DROP in self.empty


def order(frontend: Frontend) -> tuple[int, bytes]:
    """Cluster IPs first, then by key: plans list frontends as `restore` finds them."""
    return frontend.type, frontend.key


def plan(service: Service, slices: Sequence[EndpointSlice], here: Here) -> tuple[Plan, ...]:
    """The plans of all units of a service; `slices` are all of that service."""
    return tuple(
        [
            _plan(service, port, which, cluster_ip, slices, here)
            for port in service.ports
            for which, cluster_ip in service.cluster_ips.items()
        ]
    )


def _plan(  # noqa: PLR0913, PLR0917 - the coordinates of a unit
    service: Service,
    port: ServicePort,
    which: Family,
    cluster_ip: Address,
    slices: Sequence[EndpointSlice],
    here: Here,
) -> Plan:
    ranges = _ranges(service, which, here)
    flags = _way(service, port.protocol, here)
    frontends = _frontends(service, port, which, cluster_ip, flags, limited=bool(ranges))
    found = candidates(slices, port.name, port.protocol, which)
    chosen = select(found, node=here.name, zone=here.zone)
    policies = {View.CLUSTER_IP: service.internal_policy}
    if len(frontends) > 1:
        # Pods and this node's own processes reach all endpoints behind an external address,
        # whatever the external policy says (kube-proxy's short-circuit).
        policies |= {View.INSIDE: Policy.CLUSTER, View.OUTSIDE: service.external_policy}
    backends = _backends(chosen, policies, here)
    if service.weights:
        backends = _weighed(backends, service, slices)
    by_ring = (service.algorithm or here.algorithm) is Algorithm.MAGLEV
    return Plan(
        unit=Unit(service.name, port.name, port.protocol, which),
        frontends=frontends,
        backends=backends,
        empty=_empty(chosen, policies),
        affinity_seconds=service.affinity_seconds,
        ranges=ranges if any(one.flags & FrontendFlag.RANGES for one in frontends) else (),
        ring=by_ring and any(one.views & 1 << View.OUTSIDE for one in backends),
    )


def _weighed(
    backends: tuple[Backend, ...], service: Service, slices: Sequence[EndpointSlice]
) -> tuple[Backend, ...]:
    known: dict[Address, int] = {}
    for part in slices:
        known |= part.weighed(service.weights)
    return tuple(
        [
            msgspec.structs.replace(one, weight=known[one.address])
            if one.address in known and one.views & VIEWS
            else one
            for one in backends
        ]
    )


def _way(service: Service, protocol: Protocol, here: Here) -> int:
    """Flags (`FrontendFlag`) of how its backends of other nodes are reached."""
    way = service.forwarding or here.forwarding
    if (
        not here.knows_nodes
        or way is Way.SNAT
        or (way is Way.HYBRID and protocol is not Protocol.TCP)
    ):
        return 0
    is_opt = (service.dispatch or here.dispatch) is Dispatch.OPT
    return FrontendFlag.DSR | (FrontendFlag.OPT if is_opt else 0)


def _frontends(  # noqa: PLR0913
    service: Service,
    port: ServicePort,
    which: Family,
    cluster_ip: Address,
    flags: int,
    *,
    limited: bool,
) -> tuple[Frontend, ...]:
    def one(address: Address, number: int, kind: FrontendType) -> Frontend:
        scope = Scope.NODE if kind is FrontendType.NODE_PORT else Scope.ADDRESS
        key = FrontendKey(address, number, port.protocol, scope).pack()
        # Ranges guard load balancer addresses only; the node port beside them stays open.
        flagged = limited and kind is FrontendType.LOAD_BALANCER
        return Frontend(key, kind, flags | (FrontendFlag.RANGES if flagged else 0))

    found = [one(cluster_ip, port.port, FrontendType.CLUSTER_IP)]
    if port.node_port:
        found.append(one(ANY[which], port.node_port, FrontendType.NODE_PORT))
    for addresses, kind in (
        (service.external_ips, FrontendType.EXTERNAL_IP),
        (service.load_balancer_ips, FrontendType.LOAD_BALANCER),
    ):
        found += [
            one(address, port.port, kind) for address in addresses if family(address) == which
        ]
    if len(found) > 1:  # one address may be named twice: the first kind in this order counts
        found = sorted({one.key: one for one in reversed(found)}.values(), key=order)
    return tuple(found)


def _ranges(service: Service, which: Family, here: Here) -> tuple[Prefix, ...]:
    """The sources allowed in this family; none: everyone.

    Where this node is allowed, so is a load balancer address as the source: a node that talks
    to an address it holds itself may be given that very address.
    """
    ranges = [prefix for prefix in service.source_ranges if family(prefix[0]) == which]
    if any(address in prefix for prefix in ranges for address in here.addresses):
        ranges += [Prefix((ip, 128)) for ip in service.load_balancer_ips if family(ip) == which]
    return tuple(sorted(set(ranges)))


def _backends(
    chosen: Selection, policies: Mapping[View, Policy], here: Here
) -> tuple[Backend, ...]:
    everywhere = sum(1 << view for view in policies)
    if all(chosen.under(policy) is chosen.usable for policy in policies.values()):
        return tuple([_backend(one, everywhere, here) for one in chosen.usable])
    views = dict.fromkeys(map(id, chosen.usable), 0)
    for view, policy in policies.items():
        for one in chosen.under(policy):
            views[id(one)] |= 1 << view
    return tuple([_backend(one, views[id(one)], here) for one in chosen.usable])


def _backend(one: Candidate, views: int, here: Here) -> Backend:
    of = one.endpoint
    # An endpoint in the host's network may come without its node's name.
    if of.node == here.name or of.address in here.addresses:
        views |= BackendFlag.HERE
    state = BackendState.READY if of.ready else BackendState.TERMINATING
    return Backend(of.address, one.port, state, views, of.node, of.zone)


def _empty(chosen: Selection, policies: Mapping[View, Policy]) -> tuple[Empty, Empty, Empty]:
    """Refuse where nobody serves anywhere; stay silent where only others do."""

    def verdict(view: View) -> Empty:
        policy = policies.get(view, Policy.CLUSTER)
        return Empty.REFUSE if chosen.under(policy) else chosen.empty

    return verdict(View.CLUSTER_IP), verdict(View.INSIDE), verdict(View.OUTSIDE)
