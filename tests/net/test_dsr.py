"""Direct server return: backends of another node see the client, and answer it past the balancer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.bed.manifests import node
from tests.net.outside import FAMILY, PROTOCOL, Met, Outside, Place
from tests.net.world import World

MODES = ("native", "generic", "off")
pytestmark = pytest.mark.parametrize(
    "world",
    [("two_nodes", "--xdp", mode, "--forwarding", "dsr") for mode in MODES],
    ids=MODES,
    indirect=True,
)
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


def sent(world: World) -> int:
    """Packets that n1 sent out of eth0, by XDP too."""
    (shown,) = json.loads(world.node.run("ip", "-j", "-s", "link", "show", "eth0").stdout)
    return int(shown["stats64"]["tx"]["packets"])


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_sees_the_client(
    outside: Outside, services: dict[str, dict[str, Place]], kind: str, protocol: str, family: str
) -> None:
    """Its answer comes from the service's address and port, which is not its own."""
    met = outside.ask(protocol, services[protocol][kind], family)
    assert met == Met("web-1", getattr(outside.client, family))
