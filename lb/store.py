"""All objects of all sources, joined: which slices belong to which service, and what changed.

Compares by content, so that a resync or an annotation's churn touches nothing. Pure; a slice
may come before its service, and leave after it.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """What has to be planned again. `node`: the own Node changed, which touches everything.

    `peers`: addresses of other nodes did, which touches no service.
    """

    services: set[ServiceName]
    node: bool
    peers: bool


class Store:
    """The present state. `node_name` says which Node is the own one."""

    def __init__(self, node_name: str) -> None:
        self.node: Node | None = None
        self.refused: dict[Key, tuple[Refused, ...]] = {}
        self._node_name = node_name
        self._peers: dict[str, tuple[Address, ...]] = {}
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[SliceName, EndpointSlice] = {}
        # Tuples, in order: most services have one slice, and a set of one takes four times as much.
        self._of_service: dict[ServiceName, tuple[SliceName, ...]] = {}

    def apply(self, changes: Iterable[Change]) -> Touched:
        """Take the changes in; what they touched."""
        touched = Touched(set(), node=False, peers=False)
        node_changed = peers_changed = False
        for change in changes:
            self._note_refused(change)
            match change.key.kind:
                case Kind.SERVICE:
                    self._service(change, touched.services)
                case Kind.SLICE:
                    self._slice(change, touched.services)
                case Kind.NODE:
                    node_changed |= self._own_node(change)
                    peers_changed |= self._peer(change)
        return touched._replace(node=node_changed, peers=peers_changed)

    def peers(self) -> set[Address]:
        """The addresses of all other nodes that are known."""
        return {address for addresses in self._peers.values() for address in addresses}

    def names(self) -> set[ServiceName]:
        """Every service that is to be proxied."""
        return set(self._services)

    def service(self, name: ServiceName) -> Service | None:
        """The service; None: not there, or not to be proxied."""
        return self._services.get(name)

    def slices(self, name: ServiceName) -> tuple[EndpointSlice, ...]:
        """All slices of a service, in the order of their names."""
        return tuple([self._slices[one] for one in self._of_service.get(name, ())])

    def _note_refused(self, change: Change) -> None:
        if change.refused:
            self.refused[change.key] = change.refused
        else:
            self.refused.pop(change.key, None)

    def _service(self, change: Change, touched: set[ServiceName]) -> None:
        name = ServiceName(change.key.namespace, change.key.name)
        new = change.value if isinstance(change.value, Service) else None
        if self._services.get(name) == new:
            return
        touched.add(name)
        if new is None:
            del self._services[name]
        else:
            self._services[new.name] = new  # the name that it holds itself: one tuple less

    def _slice(self, change: Change, touched: set[ServiceName]) -> None:
        name = SliceName(change.key.namespace, change.key.name)
        new = change.value if isinstance(change.value, EndpointSlice) else None
        old = self._slices.get(name)
        if old is not None and new is not None and old.same_content(new):
            self._slices[name] = new
            return
        if old is not None:
            del self._slices[name]
            left = tuple([one for one in self._of_service.pop(old.service) if one != name])
            if left:
                self._of_service[old.service] = left
            touched.add(old.service)
        if new is not None:
            self._slices[new.name] = new
            names = (*self._of_service.get(new.service, ()), new.name)
            self._of_service[new.service] = tuple(sorted(names))
            touched.add(new.service)

    def _peer(self, change: Change) -> bool:
        """Another node's addresses; True: they are others than before."""
        name = change.key.name
        if name == self._node_name:
            return False
        before = self._peers.pop(name, ())
        if isinstance(change.value, Node):
            self._peers[name] = change.value.addresses
        return before != self._peers.get(name, ())

    def _own_node(self, change: Change) -> bool:
        """Other nodes decide nothing here; a Node that vanished stays as it was last seen."""
        if change.key.name != self._node_name or not isinstance(change.value, Node):
            return False
        changed = self.node != change.value
        self.node = change.value
        return changed
