"""All objects of all sources, joined: which slices belong to which service, and what changed.

Compares by content, so that a resync or an annotation's churn touches nothing. Pure; a slice
may come before its service, and leave after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from zlib import crc32

from msgspec.structs import replace

from lb import hostports
from lb.address import Address, Family, Prefix, family
from lb.model import (
    ALL_NODES,
    ALL_PODS,
    Change,
    EndpointSlice,
    Key,
    Kind,
    Node,
    Pod,
    Refused,
    Service,
    ServiceCIDR,
    ServiceName,
    SliceName,
    Trigger,
)
from lb.plan import Here, Plan, plan
from lb.pods import Pods


class Touched(NamedTuple):
    """What has to be planned again; a pod with host ports counts as a service.

    `node`: the own Node changed, or all others are known now, which touches everything.

    `peers`: addresses of other nodes did, which touches no service.

    `cidrs`: where cluster IPs are taken from changed, which touches no plan.
    `services`: with the first object that changed them. `families`: those in which anything
    changed. `triggers`: of slices, when what they tell of happened. `refused`: what is newly so.
    """

    services: dict[ServiceName, Key]
    node: bool
    peers: bool
    cidrs: bool
    families: set[Family]
    triggers: list[Trigger]
    refused: list[Refused]


class Store:
    """The present state. `node_name` says which Node is the own one.

    Changes triggered before `since`, seconds since the epoch, say nothing of how quick we are.
    Pods count for their names; for host ports if `host_ports`, for weights if `pod_weights`.
    """

    def __init__(
        self,
        node_name: str,
        *,
        since: float = 0.0,
        host_ports: bool = False,
        pod_weights: bool = False,
    ) -> None:
        self.node: Node | None = None
        self.refused: dict[Key, tuple[Refused, ...]] = {}
        self._node_name, self._since = node_name, since
        self._pods = Pods(node_name, host_ports=host_ports, weights=pod_weights)
        self.has_all_pods = False
        """An API server has said that every pod of this node is known."""
        self.has_all_nodes = False
        """The same of every Node."""
        self.seen = dict.fromkeys(Kind, 0)
        """How many changes came of each kind, whatever was in them."""
        self._service_cidrs: dict[str, tuple[Prefix, ...]] = {}
        self._peers: dict[str, tuple[Address, ...]] = {}
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[SliceName, EndpointSlice] = {}
        # Tuples, in order: most services have one slice, and a set of one takes four times as much.
        self._of_service: dict[ServiceName, tuple[SliceName, ...]] = {}

    def apply(self, changes: Iterable[Change]) -> Touched:
        """Take the changes in; what they touched."""
        touched = Touched(
            {}, node=False, peers=False, cidrs=False, families=set(), triggers=[], refused=[]
        )
        node_changed = peers_changed = cidrs_changed = False
        reweighed: dict[str, dict[int, Key]] = {}
        for change in changes:
            self._note_refused(change, touched)
            self.seen[change.key.kind] += 1
            match change.key.kind:
                case Kind.SERVICE:
                    self._service(change, touched)
                case Kind.SLICE:
                    self._slice(change, touched)
                case Kind.NODE:
                    node_changed |= self._own_node(change) or self._all_nodes(change)
                    peers_changed |= self._peer(change)
                case Kind.SERVICE_CIDR:
                    cidrs_changed |= self._service_cidr(change)
                case Kind.POD:
                    self._pod(change, touched, reweighed)
                    self.has_all_pods |= change == ALL_PODS
        if reweighed:
            self._touch_weighed(reweighed, touched)
        return touched._replace(node=node_changed, peers=peers_changed, cidrs=cidrs_changed)

    def peers(self) -> set[Address]:
        """The addresses of all other nodes that are known."""
        return {address for addresses in self._peers.values() for address in addresses}

    def names(self) -> set[ServiceName]:
        """Every service that is to be proxied, and every pod with host ports."""
        return {*self._services, *self._pods.exposed}

    def exposed_pods(self) -> list[Pod]:
        """All pods of this node with host ports."""
        return list(self._pods.exposed.values())

    def plans(
        self, name: ServiceName, here: Here, *, external_ips: bool = True
    ) -> tuple[Plan, ...]:
        """What the maps should hold of a service, or of a pod's host ports; nothing if it is gone.

        `external_ips`: are spec.externalIPs served?
        """
        service = self._services.get(name)
        if service is None:
            pod = self._pods.exposed.get(name)
            return hostports.plans(name, pod, here) if pod is not None else ()
        if service.external_ips and not external_ips:
            service = replace(service, external_ips=())
        return plan(self._pods.weighed(service), self.slices(name), here)

    def service(self, name: ServiceName) -> Service | None:
        """The service; None: not there, or not to be proxied."""
        return self._services.get(name)

    def slices(self, name: ServiceName) -> tuple[EndpointSlice, ...]:
        """All slices of a service, in the order of their names."""
        return tuple([self._slices[one] for one in self._of_service.get(name, ())])

    def pods(self) -> Iterator[tuple[Address, str]]:
        """Addresses, and whose they are as NAMESPACE/NAME; what comes later counts."""
        yield from self._pods.names()
        for one in self._slices.values():
            for endpoint, pod in zip(one.endpoints, one.pod_names.split("\n"), strict=False):
                if pod:
                    yield endpoint.address, f"{one.name.namespace}/{pod}"

    def service_cidrs(self) -> frozenset[Prefix]:
        """Where cluster IPs are taken from."""
        return frozenset(one for cidrs in self._service_cidrs.values() for one in cidrs)

    def all_refused(self) -> list[Refused]:
        """What is left out of any object."""
        return [one for group in self.refused.values() for one in group]

    def _service_cidr(self, change: Change) -> bool:
        name = change.key.name
        old = self._service_cidrs.pop(name, ())
        if isinstance(change.value, ServiceCIDR):
            self._service_cidrs[name] = change.value.cidrs
        return old != self._service_cidrs.get(name, ())

    def _note_refused(self, change: Change, touched: Touched) -> None:
        refused = change.refused
        if change.key.kind is Kind.POD:
            unfit = self._pods.unfit(change)
            refused += tuple([Refused(str(change.key), why) for why in unfit])
        if refused:
            if refused != self.refused.get(change.key):
                touched.refused.extend(refused)
            self.refused[change.key] = refused
        else:
            self.refused.pop(change.key, None)

    def _service(self, change: Change, touched: Touched) -> None:
        name = ServiceName(change.key.namespace, change.key.name)
        new = change.value if isinstance(change.value, Service) else None
        old = self._services.get(name)
        if old == new:
            return
        touched.services.setdefault(name, change.key)
        for one in (old, new):
            touched.families.update(one.cluster_ips if one is not None else ())
        if new is None:
            del self._services[name]
        else:
            self._services[new.name] = new  # the name that it holds itself: one tuple less

    def _pod(self, change: Change, touched: Touched, reweighed: dict[str, dict[int, Key]]) -> None:
        moved = self._pods.take(change)
        if moved.ports is not None:
            name = hostports.service_name(change.key.namespace, change.key.name)
            touched.services.setdefault(name, change.key)
            for one in moved.ports:
                touched.families.update(map(family, one.addresses) if one is not None else ())
        if moved.weight:
            of_namespace = reweighed.setdefault(change.key.namespace, {})
            of_namespace[crc32(change.key.name.encode())] = change.key

    def _touch_weighed(self, reweighed: Mapping[str, Mapping[int, Key]], touched: Touched) -> None:
        """Services with a slice that names one of these pods.

        Looked for, once for all changes: an index of all pods would be some MB.
        """
        for one in self._slices.values():
            own = reweighed.get(one.name.namespace)
            if own and one.pods:
                for number in memoryview(one.pods).cast("I"):
                    if number in own:
                        touched.services.setdefault(one.service, own[number])
                        touched.families.add(one.family)

    def _slice(self, change: Change, touched: Touched) -> None:
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
            touched.services.setdefault(old.service, change.key)
            touched.families.add(old.family)
        if new is not None:
            self._slices[new.name] = new
            names = (*self._of_service.get(new.service, ()), new.name)
            self._of_service[new.service] = tuple(sorted(names))
            touched.services.setdefault(new.service, change.key)
            touched.families.add(new.family)
            if new.trigger_time > self._since:
                touched.triggers.append(Trigger(new.service, new.family, new.trigger_time))

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

    def _all_nodes(self, change: Change) -> bool:
        """True: that every Node is known is news."""
        is_news = change == ALL_NODES and not self.has_all_nodes
        self.has_all_nodes |= is_news
        return is_news
