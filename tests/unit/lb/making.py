"""Model values for tests, in few words: services, slices, their plans."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lb.address import Family, family, parse
from lb.model import (
    Endpoint,
    EndpointSlice,
    Protocol,
    Service,
    ServiceName,
    ServicePort,
    SliceName,
    SlicePort,
)
from lb.plan import Here, Plan, plan

N1 = Here("n1", "a", (parse("192.0.2.1"), parse("2001:db8::1")))
BASE = {Family.IPV4: "10.0.0.", Family.IPV6: "fd00::"}


def service(name: str, *cluster_ips: str, node_port: int = 0, **fields: Any) -> Service:
    """A service with the port 80 over TCP, or with `ports`."""
    ips = [parse(text) for text in cluster_ips]
    fields.setdefault("ports", (ServicePort("", Protocol.TCP, 80, node_port),))
    return Service(
        ServiceName("default", name), cluster_ips={family(ip): ip for ip in ips}, **fields
    )


def endpoint(text: str, which: Family = Family.IPV4) -> Endpoint:
    """`3 n2 draining`: the last part of the address; node or -; ready, draining or unready."""
    number, node, state = [*text.split(), "-", "-"][:3]
    return Endpoint(
        parse(BASE[which] + number),
        node="" if node == "-" else node,
        zone="" if node == "-" else f"zone-of-{node}",
        ready=state not in ("draining", "unready"),
        serving=state != "unready",
        terminating=state == "draining",
    )


def slice_of(
    name: str,
    *endpoints: str,
    which: Family = Family.IPV4,
    ports: tuple[SlicePort, ...] = (SlicePort("", Protocol.TCP, 8080),),
    part: str = "1",
) -> EndpointSlice:
    """A slice of the service `name` with such endpoints on port 8080."""
    return EndpointSlice(
        SliceName("default", f"{name}-{which.label}-{part}"),
        ServiceName("default", name),
        which,
        ports,
        tuple(endpoint(text, which) for text in endpoints),
    )


def numbered(numbers: Iterable[int], node: str = "-") -> list[str]:
    """Endpoints with these numbers."""
    return [f"{number} {node}" for number in numbers]


def plans(
    one: Service, *slices: EndpointSlice, here: Here = N1
) -> dict[ServiceName, tuple[Plan, ...]]:
    """What a step takes."""
    return {one.name: plan(one, slices, here)}
