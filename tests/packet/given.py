"""What a row is given, in few words: a service and its endpoints as values of the model."""

from __future__ import annotations

from typing import Any, NamedTuple

from lb.address import Address, Family, family, parse, parse_prefix
from lb.model import (
    Endpoint,
    EndpointSlice,
    Policy,
    Protocol,
    Service,
    ServiceName,
    ServicePort,
    SliceName,
    SlicePort,
    Way,
)

CLUSTER_IPS = {Family.IPV4: "10.96.0.10", Family.IPV6: "fd00:10:96::10"}


class Given(NamedTuple):
    """A service and all its slices."""

    service: Service
    slices: tuple[EndpointSlice, ...]


class Place(NamedTuple):
    """An address and a port."""

    address: Address
    port: int


def place(text: str) -> Place:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    address, _, port = text.rpartition(":")
    return Place(parse(address.strip("[]")), int(port))


def service(
    frontend: str,
    *backends: str,
    kind: str = "load balancer",
    name: str = "web",
    ranges: tuple[str, ...] = (),
    local: bool = False,
    affinity: int = 0,
    forwarding: Way | None = None,
) -> Given:
    """A service at `203.0.113.10:80/tcp` with backends `10.244.2.5:8080 n2`, or `... n2 draining`.

    `kind`: `load balancer`, `external`, `cluster` or `node port`, whose address does not count.
    """
    text, _, word = frontend.rpartition("/")
    address, number = place(text)
    protocol = Protocol[word.upper()]
    which = family(address)
    cluster_ip = address if kind == "cluster" else parse(CLUSTER_IPS[which])
    fields: dict[str, Any] = {}
    if kind == "load balancer":
        fields["load_balancer_ips"] = (address,)
    elif kind == "external":
        fields["external_ips"] = (address,)
    node_port = number if kind == "node port" else 0
    return Given(
        Service(
            ServiceName("default", name),
            (ServicePort("", protocol, number, node_port),),
            {which: cluster_ip},
            source_ranges=tuple(parse_prefix(one) for one in ranges),
            external_policy=Policy.LOCAL if local else Policy.CLUSTER,
            affinity_seconds=affinity,
            forwarding=forwarding,
            **fields,
        ),
        tuple(_slice(name, protocol, which, number, one) for number, one in enumerate(backends, 1)),
    )


def _slice(
    name: str, protocol: Protocol, which: Family, number: int, backend: str
) -> EndpointSlice:
    text, node, state = [*backend.split(), ""][:3]
    address, port = place(text)
    draining = state == "draining"
    return EndpointSlice(
        SliceName("default", f"{name}-{number}"),
        ServiceName("default", name),
        which,
        (SlicePort("", protocol, port),),
        (Endpoint(address, node=node, ready=not draining, terminating=draining),),
    )
