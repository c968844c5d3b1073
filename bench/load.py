"""Clusters of any size to fill an agent with: services of one port and some endpoints each.

The same services as Kubernetes objects and as changes of the model. Their endpoints lie on a
hundred nodes in three zones, and lead nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from lb.model import Change
from lb.sources.convert import from_plain
from tests.bed.manifests import (
    Manifest,
    Manifests,
    endpoint,
    endpoint_slice,
    port,
    service,
    slice_port,
)

ENDPOINTS = 10
PER_FILE = 100
"""Services of one manifest file."""


def cluster_ip(number: int) -> str:
    """The address of service `number`, which counts from 1."""
    return f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def endpoint_ip(number: int, one: int) -> str:
    """The address of a service's endpoint; an address of nobody's."""
    place = number * ENDPOINTS * 2 + one
    return f"10.{128 + (place >> 16)}.{place >> 8 & 255}.{place & 255}"


def objects(number: int, *, turn: int = 0) -> tuple[Manifest, Manifest]:
    """The Service and its EndpointSlice; the last endpoint is another one at odd turns."""
    name = f"service-{number}"
    ones = [*range(ENDPOINTS - 1), ENDPOINTS - 1 + turn % 2]
    endpoints = [
        endpoint(
            endpoint_ip(number, one), node=f"node-{(number + one) % 100}", zone=f"zone-{one % 3}"
        )
        for one in ones
    ]
    return (
        service(name, cluster_ips=[cluster_ip(number)], ports=[port(80, name="http")]),
        endpoint_slice(name, endpoints=endpoints, ports=[slice_port(8080, name="http")]),
    )


def changes(number: int, *, turn: int = 0) -> list[Change]:
    """The same as a source would deliver it."""
    found = [from_plain(one) for one in objects(number, turn=turn)]
    return [one for one in found if isinstance(one, Change)]


def batches(count: int) -> Iterator[range]:
    """The numbers of `count` services, by file."""
    for first in range(1, count + 1, PER_FILE):
        yield range(first, min(first + PER_FILE, count + 1))


def write(manifests: Manifests, count: int) -> None:
    """Services 1 to `count` as JSON files."""
    for numbers in batches(count):
        items = [one for number in numbers for one in objects(number)]
        manifests.write(f"load-{numbers[0]:05}.json", *items)
