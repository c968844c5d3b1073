"""The joined state of all sources: which slices belong to which service, and who is this node.

Pure: no clock, no lock, no map. `apply` says which services have to be planned again, so that a
change costs what it touches and not what the cluster holds. Both sides of the join may come
first, change sides, or go without ever having been there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lb.address import Address
from lb.model import (
    Change,
    EndpointSlice,
    Key,
    Kind,
    Node,
    Refused,
    Service,
    ServiceName,
    SliceName,
)


class Touched(NamedTuple):
    """What really changed in content."""

    services: frozenset[ServiceName] = frozenset()
    node: bool = False


class Store:
    """Holds the last value of every object; `node_name` is the node that counts as own."""

    def __init__(self, node_name: str) -> None:
        self.node: Node | None = None
        self._node_name = node_name
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[SliceName, EndpointSlice] = {}
        self._by_service: dict[ServiceName, dict[SliceName, EndpointSlice]] = {}
        self._node_addresses: dict[str, tuple[Address, ...]] = {}
        self._refused: dict[Key, tuple[Refused, ...]] = {}

    def apply(self, changes: Iterable[Change]) -> Touched:
        """Take the changes; of several for one object the last counts alone."""
        touched: set[ServiceName] = set()
        own = self.node
        for change in {change.key: change for change in changes}.values():
            if change.refused:
                self._refused[change.key] = change.refused
            else:
                self._refused.pop(change.key, None)
            touched.update(self._apply(change))
        return Touched(frozenset(touched), own != self.node)

    def _apply(self, change: Change) -> Iterator[ServiceName]:
        value = change.value
        if change.key.kind is Kind.SERVICE:
            return self._put_service(
                ServiceName(change.key.namespace, change.key.name),
                value if isinstance(value, Service) else None,
            )
        if change.key.kind is Kind.SLICE:
            return self._put_slice(
                SliceName(change.key.namespace, change.key.name),
                value if isinstance(value, EndpointSlice) else None,
            )
        self._put_node(change.key.name, value if isinstance(value, Node) else None)
        return iter(())

    def _put_service(self, name: ServiceName, new: Service | None) -> Iterator[ServiceName]:
        old = self._services.get(name)
        if new is None:
            self._services.pop(name, None)
        else:
            self._services[name] = new
        if old != new:
            yield name

    def _put_slice(self, name: SliceName, new: EndpointSlice | None) -> Iterator[ServiceName]:
        old = self._slices.pop(name, None)
        if old is not None:
            own = self._by_service[old.service]
            del own[name]
            if not own:
                del self._by_service[old.service]
        if new is not None:
            self._slices[name] = new
            self._by_service.setdefault(new.service, {})[name] = new
        if old is not None and new is not None and old.same_content(new):
            return
        # Both ends of a slice that moves from one service to another.
        if old is not None:
            yield old.service
        if new is not None:
            yield new.service

    def _put_node(self, name: str, new: Node | None) -> None:
        if name == self._node_name:
            self.node = new
        if new is None:
            self._node_addresses.pop(name, None)
        else:
            self._node_addresses[name] = new.addresses

    def service(self, name: ServiceName) -> Service | None:
        """The service, if it is one to be proxied."""
        return self._services.get(name)

    def services(self) -> Iterable[ServiceName]:
        """The names of all services to be proxied, those without slices too."""
        return self._services.keys()

    def slices(self, name: ServiceName) -> tuple[EndpointSlice, ...]:
        """The slices of a service, both families, in the order of their names."""
        own = self._by_service.get(name, {})
        return tuple(own[slice_name] for slice_name in sorted(own))

    @property
    def node_addresses(self) -> Mapping[str, tuple[Address, ...]]:
        """The addresses of every node that is known, by the node's name."""
        return self._node_addresses

    @property
    def refused(self) -> Mapping[Key, tuple[Refused, ...]]:
        """What was left out, by object; objects that were taken whole are not here."""
        return self._refused
