"""Health check node ports: which Local services have one, where it listens, what it counts.

Follows the controller: told under its lock, at the end of each turn, which services changed, and
looks at nothing but those. Opening and closing sockets is `lb.serving.listeners`' work, later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bpf.layout import AddressFlag
from lb.address import Address, Family, family, parse_prefix, show
from lb.model import EndpointSlice, ServiceName
from lb.nodeports import PRIMARY
from lb.serving import health
from lb.serving.answer import Answer, Place, Response
from lb.serving.listeners import Listeners
from lb.store import Store
from lb.turn import Turn

GROUP = "health-checks"
_ALL = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}
_LINK_LOCAL = b"\xfe\x80"

Counts = dict[Family, int]
"""Ready endpoints on this node, in each family that the service has."""


def hosts(
    local: Mapping[Address, int], *, setting: Sequence[str], mode: str
) -> dict[Family, tuple[str, ...]]:
    """Where to listen, by family: on all addresses, or on those that accept node ports.

    `local` holds flags (`AddressFlag`) by address; `setting` and `mode` are those of node ports.
    """
    wanted = list(setting) or ([PRIMARY] if mode == "nftables" else [])
    found: dict[Family, tuple[str, ...]] = {}
    for which in Family:
        if PRIMARY not in wanted and _is_open(wanted, which):
            found[which] = (_ALL[which],)
        else:
            accepting = [one for one, flags in local.items() if flags & AddressFlag.NODE_PORT]
            found[which] = tuple(
                sorted(
                    show(one)
                    for one in accepting
                    # A link-local address is one of a device: nobody outside can name it.
                    if family(one) is which and not one.startswith(_LINK_LOCAL)
                )
            )
    return found


def _is_open(setting: Iterable[str], which: Family) -> bool:
    """No range of a family means all of it, and so does one of length 0."""
    own = [prefix for prefix in map(parse_prefix, setting) if family(prefix[0]) is which]
    return not own or any(prefix.length == 0 for prefix in own)


def count(slices: Iterable[EndpointSlice], which: Family, node: str) -> int:
    """Distinct addresses of ready endpoints on the node: two ports of a pod count once.

    Those that terminate count nothing, so that load balancers leave while they still serve.
    """
    return len(
        {
            one.address
            for part in slices
            if part.family is which
            for one in part.endpoints
            if one.ready and node and one.node == node
        }
    )


class Checks:
    """`where` says where to listen now; `healthy`, whether the agent is."""

    def __init__(
        self,
        store: Store,
        node: str,
        listeners: Listeners,
        where: Callable[[], dict[Family, tuple[str, ...]]],
        healthy: Callable[[], bool],
    ) -> None:
        self._store, self._node = store, node
        self._listeners, self._where, self._healthy = listeners, where, healthy
        self.ports: dict[ServiceName, int] = {}
        self._counts: dict[ServiceName, Counts] = {}
        self._hosts: dict[Family, tuple[str, ...]] = {}

    def follow(self, turn: Turn) -> None:
        """Services changed, or this node's addresses did. The caller holds the lock."""
        before = self._hosts
        if self.ports:
            self._hosts = self._where()
        stale = self._hosts != before
        for name in turn.services:
            service = self._store.service(name)
            if service is None or not service.health_check_node_port:
                stale |= self.ports.pop(name, None) is not None
                self._counts.pop(name, None)
                continue
            slices = self._store.slices(name)
            self._counts[name] = {
                which: count(slices, which, self._node) for which in service.cluster_ips
            }
            self.ports[name] = service.health_check_node_port
            stale = True
        if stale:
            self._hosts = self._where()
            self._listeners.want(GROUP, self._places())

    def owner(self, place: Place) -> ServiceName | None:
        """Whose port it is."""
        return next((name for name, port in sorted(self.ports.items()) if port == place.port), None)

    def _places(self) -> dict[Place, Answer]:
        """Of two services with one port the first by name has it."""
        found: dict[Place, Answer] = {}
        for name, port in sorted(self.ports.items()):
            for which in self._counts[name]:
                for host in self._hosts[which]:
                    found.setdefault(Place(host, port), _Check(self, name, which))
        return found

    def answer(self, name: ServiceName, which: Family) -> Response:
        """What a load balancer is told of a service. For any thread."""
        number = self._counts.get(name, {}).get(which, 0)
        return health.service(name, number, healthy=self._healthy())


class _Check(msgspec.Struct, frozen=True):
    """The answer of one service in one family: equal to itself when it is asked for again."""

    checks: Checks
    name: ServiceName
    which: Family

    def __call__(self, path: str, /) -> Response:  # noqa: ARG002 - any path will do
        return self.checks.answer(self.name, self.which)
