"""Which endpoints may serve one port of a service on this node.

`candidates` joins a service port to its slices; `select` applies readiness, traffic policy and
topology. Both are functions of the set of endpoints: the order in which slices and endpoints
arrive decides nothing. The rules are kube-proxy's (KEP-1669, KEP-2086, KEP-2433, KEP-3015).

Not for choosing a backend for a connection, and not for frontends: an external policy on a
service without external frontends is nothing that this module needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from bpf.layout import Empty
from lb.address import Address, Family
from lb.model import Endpoint, EndpointSlice, Policy, Protocol


class Candidate(NamedTuple):
    """An endpoint with the port number that its slice gives it."""

    endpoint: Endpoint
    port: int


class Selection(msgspec.Struct, frozen=True, gc=False):
    """The candidates that may serve a service port here; each list sorted by address and port."""

    cluster: tuple[Candidate, ...]
    """For policy Cluster; and always for external addresses when pods or this node connect."""
    local: tuple[Candidate, ...]
    """For policy Local: only endpoints on this node."""
    usable: tuple[Candidate, ...]
    """Every endpoint, anywhere, that is ready or finishing its work: it keeps its flows."""

    def under(self, policy: Policy) -> tuple[Candidate, ...]:
        """The list for cluster IPs, or for external addresses from outside, by their policy."""
        return self.local if policy is Policy.LOCAL else self.cluster

    @property
    def empty(self) -> Empty:
        """What an empty list means; the Cluster list is empty only where all are."""
        return Empty.DROP if self.usable else Empty.REFUSE


def candidates(
    slices: Sequence[EndpointSlice], port_name: str, protocol: Protocol, family: Family
) -> tuple[Candidate, ...]:
    """All endpoints of a service port in one family, usable or not, sorted by address and port.

    `slices` are those of the service. Of several copies of an address and port one stays: a pod
    network may reuse an address while its last owner still terminates.
    """
    found = [
        Candidate(endpoint, port.port)
        for part in slices
        if part.family == family
        for port in part.ports
        if port.name == port_name and port.protocol == protocol
        for endpoint in part.endpoints
    ]
    places = {_place(one): one for one in found}
    if len(places) < len(found):
        places = {_place(one): one for one in sorted(found, key=_merit)}
    return tuple([places[place] for place in sorted(places)])


def select(candidates: Sequence[Candidate], *, node: str, zone: str) -> Selection:
    """The lists of the node named `node` in `zone` (empty: not known).

    Endpoints that terminate serve only where no ready one does, for each list on its own.
    A ready endpoint serves whatever its other conditions say: that is how
    `publishNotReadyAddresses` is expressed.
    """
    ready = tuple([one for one in candidates if one.endpoint.ready])
    usable = ready
    if len(ready) < len(candidates):
        usable = tuple([one for one in candidates if _is_usable(one.endpoint)])
    return Selection(
        cluster=_nearest(ready, node, zone) or usable,
        local=_on(node, ready) or _on(node, usable),
        usable=usable,
    )


def _place(one: Candidate) -> tuple[Address, int]:
    return one.endpoint.address, one.port


def _merit(one: Candidate) -> tuple[object, ...]:
    """Orders copies, the best last; what Kubernetes leaves open goes to the one that says more."""
    of = one.endpoint
    return not of.terminating, of.ready, of.serving, of.node, of.zone, of.node_hints, of.zone_hints


def _is_usable(endpoint: Endpoint) -> bool:
    return endpoint.ready or (endpoint.serving and endpoint.terminating)


def _on(node: str, choice: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    # An endpoint without a node is local nowhere, not even to an agent without a name.
    return tuple([one for one in choice if one.endpoint.node == node]) if node else ()


def _nearest(ready: tuple[Candidate, ...], node: str, zone: str) -> tuple[Candidate, ...]:
    """Those hinted to this node, else this zone, else all; one without a hint voids its kind."""
    near: list[Candidate] = []
    if node and all(one.endpoint.node_hints for one in ready):
        near = [one for one in ready if node in one.endpoint.node_hints]
    if not near and zone and all(one.endpoint.zone_hints for one in ready):
        near = [one for one in ready if zone in one.endpoint.zone_hints]
    return tuple(near) or ready
