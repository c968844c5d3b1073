"""Direct server return: a backend elsewhere sees the client, and answers past the balancer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bed.manifests import node
from tests.net.bulk import SIZE, to_and_fro
from tests.net.outside import FAMILY, PROTOCOL, Met, Outside, Place
from tests.net.small import SMALL, made_small
from tests.net.world import World, url

MODES = ("native", "generic", "off")
DISPATCHES = ("ipip", "opt")
pytestmark = pytest.mark.parametrize(
    "world",
    [
        ("two_nodes", "--xdp", mode, "--forwarding", "dsr", "--dsr-dispatch", dispatch)
        for dispatch in DISPATCHES
        for mode in MODES
    ],
    ids=[f"{dispatch}-{mode}" for dispatch in DISPATCHES for mode in MODES],
    indirect=True,
)
SMALLEST = 1320
"""Octets that have to fit between nodes: IPv6 sends packets of 1280 everywhere (RFC 8200, 5)."""
KINDS = ("node_port", "balancer", "external", "cluster")


@pytest.fixture(scope="module")
def nodes(outside: Outside) -> World:
    """Both agents know both nodes."""
    world = outside.world
    world.write("nodes", *(node(one.name, addresses=one.addresses) for one in world.cluster.nodes))
    return world


@pytest.fixture(scope="module")
def services(outside: Outside, nodes: World) -> dict[str, dict[str, Place]]:
    """One of TCP and one of UDP, each with its only backend on n2; packets come to n1."""
    return {
        protocol: outside.expose(f"far-{protocol.lower()}", [nodes.far], protocol=protocol)
        for protocol in ("TCP", "UDP")
    }


def received(world: World) -> int:
    """Octets that came to n1 by eth0."""
    (shown,) = json.loads(world.node.run("ip", "-j", "-s", "link", "show", "eth0").stdout)
    return int(shown["stats64"]["rx"]["bytes"])


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_sees_the_client(
    outside: Outside, services: dict[str, dict[str, Place]], kind: str, protocol: str, family: str
) -> None:
    """Its answer comes from the service's address and port, which is not its own."""
    met = outside.ask(protocol, services[protocol][kind], family)
    assert met == Met("web-1", getattr(outside.client, family))


@FAMILY
def test_megabytes(
    outside: Outside, services: dict[str, dict[str, Place]], megabytes: Path, family: str
) -> None:
    """20 MB arrive whole both ways, and only the client's way leads past the balancer."""
    place = services["TCP"]["balancer"]
    before = received(outside.world)
    to_and_fro(outside.client, url(getattr(place.at, family), place.port), megabytes)
    passed = received(outside.world) - before
    assert SIZE < passed < 1.2 * SIZE


@pytest.mark.parametrize("where", SMALL)
def test_path_mtu(
    outside: Outside, services: dict[str, dict[str, Place]], where: str, tmp_path: Path
) -> None:
    """Megabytes arrive whole both ways: what routers say of packets too long gets where it must.

    The balancer translates it for the client, and for the backend what is about its direct answers.
    """
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 4 * 1024)
    place = services["TCP"]["balancer"]
    with made_small(outside.world, where, SMALLEST):
        for address in place.at:
            to_and_fro(outside.client, url(address, place.port), sent)


@FAMILY
@PROTOCOL
def test_both_agents_started_again(
    outside: Outside, services: dict[str, dict[str, Place]], protocol: str, family: str
) -> None:
    """What they remember outlives them, and so does what is in force."""
    for agent in outside.world.agents:
        agent.kill()
        agent.start()
    met = outside.ask(protocol, services[protocol]["external"], family)
    assert met == Met("web-1", getattr(outside.client, family))
