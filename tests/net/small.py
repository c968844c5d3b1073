"""Ways on which fewer octets fit than both ends believe: routers have to say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.net.world import World


@contextmanager
def _routes(world: World, host: str, forth: list[str], back: list[str]) -> Iterator[None]:
    """Other routes of a host for a while: arguments of `ip route`."""
    try:
        world.cluster.claim.enter(host, "\n".join(f"ip route {one}" for one in forth))
        yield
    finally:
        world.cluster.claim.enter(host, "\n".join(f"ip route {one}" for one in back))


@contextmanager
def _small_to_client(world: World, octets: int) -> Iterator[None]:
    """The router's link to the client."""
    ways = ["198.51.100.0/24 dev outside", "2001:db8:51::/64 dev outside"]
    small = [f"replace {way} mtu lock {octets}" for way in ways]
    with _routes(world, "wire", small, [f"replace {way} proto kernel" for way in ways]):
        yield


@contextmanager
def _small_between_nodes(world: World, octets: int) -> Iterator[None]:
    """A router between the nodes, and its link to n2."""
    pods = ["10.244.2.0/24 via 192.168.77.12", "fd00:10:244:2::/64 via fd00:77::12"]
    nodes = ["10.244.2.0/24 via 192.168.77.1", "fd00:10:244:2::/64 via fd00:77::1"]
    replaced = [f"replace {one}" for one in pods]
    small = [f"{one} mtu lock {octets}" for one in replaced]
    others = [f"replace {one}" for one in nodes]
    with _routes(world, "wire", small, replaced), _routes(world, "n1", others, replaced):
        yield


@contextmanager
def _small_from_here(world: World, octets: int) -> Iterator[None]:
    """This node's own way to n2."""
    ways = ["10.244.2.0/24 via 192.168.77.12", "fd00:10:244:2::/64 via fd00:77::12"]
    replaced = [f"replace {one}" for one in ways]
    with _routes(world, "n1", [f"{one} mtu lock {octets}" for one in replaced], replaced):
        yield


SMALL = {
    "to the client": _small_to_client,
    "between nodes": _small_between_nodes,
    "from here": _small_from_here,
}


@contextmanager
def made_small(world: World, where: str, octets: int) -> Iterator[None]:
    """Only so many octets fit there for a while; nobody remembers what he learnt before."""
    for host in (world.cluster.client, *world.cluster.nodes, *world.pods.values()):
        host.run("sh", "-ec", "ip route flush cache; ip -6 route flush cache")
    with SMALL[where](world, octets):
        yield
