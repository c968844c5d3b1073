"""Who may come in from outside, and to whom: external policy, source ranges, session affinity."""

from __future__ import annotations

import pytest

from tests.bed import connect
from tests.net.outside import FAMILY, FAST, KINDS, PROTOCOL, TWO_NODES, Met, Outside, ask
from tests.net.world import World

pytestmark = TWO_NODES
SILENT = Met("ETIMEDOUT", "")
SECOND = {"ipv4": "198.51.100.11", "ipv6": "2001:db8:51::11"}
"""Another address of the client outside."""


@pytest.fixture(scope="module", autouse=True)
def _second_client(world: World) -> None:
    client = world.cluster.client
    client.run("ip", "addr", "add", f"{SECOND['ipv4']}/24", "dev", "eth0")
    # Deprecated, so that nobody takes it unasked.
    client.run(
        "ip", "addr", "add", f"{SECOND['ipv6']}/64", "dev", "eth0", "nodad", "preferred_lft", "0"
    )


@FAMILY
@PROTOCOL
def test_local_policy(outside: Outside, protocol: str, family: str) -> None:
    """Under Local only this node's backends serve, and see the client; without one, silence."""
    world, name = outside.world, f"local-{protocol.lower()}-{family}"
    places = outside.expose(name, world.webs, protocol=protocol, external_policy="Local")
    for kind in ("node_port", "balancer", "external"):
        for _ in range(4):
            met = outside.ask(protocol, places[kind], family)
            assert met == Met("web-0", getattr(outside.client, family))
    spec = {"protocol": protocol, "places": places, "external_policy": "Local"}
    outside.expose(name, [world.far], **spec)
    before = outside.drops("no_local_backend")
    for kind in ("node_port", "balancer", "external"):
        assert outside.ask(protocol, places[kind], family, *FAST) == SILENT
    assert outside.drops("no_local_backend") >= before + 3
    met = outside.ask(protocol, places["cluster"], family)
    assert met == Met("web-1", getattr(world.node, family))
    number = places["node_port"].port
    met = ask(world.app, protocol, getattr(world.node, family), number)
    assert met == Met("web-1", getattr(world.app, family))
    outside.expose(name, world.webs, **spec)
    assert outside.ask(protocol, places["node_port"], family).server == "web-0"


@FAMILY
@PROTOCOL
def test_nobody(outside: Outside, protocol: str, family: str) -> None:
    """Without any endpoint all are refused, which is counted; the first endpoint serves at once."""
    name = f"nobody-{protocol.lower()}-{family}"
    places = outside.expose(name, [], protocol=protocol)
    before = outside.drops("no_backend")
    for kind in KINDS:
        assert outside.ask(protocol, places[kind], family, *FAST).source == ""
    assert outside.drops("no_backend") >= before + 4
    outside.expose(name, [outside.world.far], protocol=protocol, places=places)
    for kind in KINDS:
        assert outside.ask(protocol, places[kind], family).server == "web-1"


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("backend", ["web-0", "web-1"])
def test_source_ranges(outside: Outside, protocol: str, family: str, backend: str) -> None:
    """Only sources in the ranges reach the balancer's address; others get silence, counted."""
    name = f"ranges-{protocol.lower()}-{family}-{backend}"
    bits = 32 if family == "ipv4" else 128
    places = outside.expose(
        name,
        [outside.world.pods[backend]],
        protocol=protocol,
        source_ranges=[f"{getattr(outside.client, family)}/{bits}"],
    )
    other = ("--source", SECOND[family])
    before = outside.drops("source_range")
    assert outside.ask(protocol, places["balancer"], family).server == backend
    assert outside.drops("source_range") == before
    assert outside.ask(protocol, places["balancer"], family, *FAST, *other) == SILENT
    assert outside.drops("source_range") > before
    for kind in ("node_port", "external", "cluster"):
        assert outside.ask(protocol, places[kind], family, *other).server == backend


@FAMILY
@PROTOCOL
def test_affinity(outside: Outside, protocol: str, family: str) -> None:
    """A client address keeps its backend over its connections; and gets another if that goes."""
    world, name = outside.world, f"sticky-{protocol.lower()}-{family}"
    spec = {"protocol": protocol, "affinity_seconds": 1000}
    places = outside.expose(name, world.webs, **spec)
    met = {outside.ask(protocol, places["balancer"], family).server for _ in range(8)}
    met |= {outside.ask(protocol, places["node_port"], family).server for _ in range(8)}
    (first,) = met
    (left,) = (pod for pod in world.webs if pod.name != first)
    outside.expose(name, [left], places=places, **spec)
    assert outside.ask(protocol, places["balancer"], family).server == left.name
    outside.expose(name, world.webs, places=places, **spec)
    met = {outside.ask(protocol, places["balancer"], family).server for _ in range(8)}
    assert met == {left.name}


@FAMILY
def test_without_affinity(outside: Outside, family: str) -> None:
    """Two clients without affinity meet both backends."""
    place = outside.expose(f"free-{family}", outside.world.webs)["balancer"]
    for source in (getattr(outside.client, family), SECOND[family]):
        rows = connect(
            outside.client, getattr(place.at, family), place.port, "--source", source, count=40
        )
        assert {"web-0" in row["said"] for row in rows} == {True, False}
