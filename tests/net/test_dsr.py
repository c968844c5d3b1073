"""Direct server return: a backend elsewhere sees the client, and answers past the balancer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bed import Cluster, Talk, until
from tests.bed.manifests import node
from tests.net.bulk import SIZE, to_and_fro
from tests.net.outside import FAMILY, PROTOCOL, Met, Outside, Place
from tests.net.small import SMALL, made_small
from tests.net.world import FAMILIES, WEB, World, url
from tests.packet.net import V4, V6
from tests.packet.packets import network, tcp, udp
from tests.packet.test_mark import marked

LINES = 7000
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


def test_explain_says_how(outside: Outside, services: dict[str, dict[str, Place]]) -> None:
    """Whether the packet is wrapped or marked for the backend's node."""
    agent, place = outside.world.agent, services["TCP"]["balancer"]
    asked = ("explain", "tcp", f"{outside.client.ipv4}:40000", f"{place.at.ipv4}:{place.port}")
    answer = json.loads(agent.tidegate(*asked, "-o", "json").stdout)
    assert (answer["mode"], answer["dispatch"]) == ("dsr", agent.flags[-1])
    assert answer["backend"] == f"{outside.world.far.ipv4}:{WEB}"
    assert answer["story"][-1].endswith("answers the client itself.")


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


@pytest.fixture(scope="module")
def lines(two_nodes: Cluster) -> None:
    """The far pod answers line by line over long connections, too."""
    for pod in two_nodes.nodes[1].pods:
        if pod.name == "web-1":
            pod.line_echo(LINES)


def asked_everywhere(outside: Outside, services: dict[str, dict[str, Place]]) -> set[Met]:
    """What new clients of all protocols and families meet."""
    return {
        outside.ask(protocol, services[protocol]["external"], family)
        for protocol in services
        for family in FAMILIES
    }


@pytest.mark.usefixtures("lines")
def test_both_agents_killed_and_started_again(
    outside: Outside, services: dict[str, dict[str, Place]]
) -> None:
    """Live connections go on, and new ones are served, with both agents dead and then back."""
    long = outside.expose("far-lines", [outside.world.far], target=LINES)
    talks = [
        Talk(outside.client, protocol.lower(), address, place.port)
        for protocol, place in (("TCP", long["balancer"]), ("UDP", services["UDP"]["balancer"]))
        for address in place.at
    ]
    served = {Met("web-1", address) for address in outside.client.addresses}
    for agent in outside.world.agents:
        agent.kill()
    assert asked_everywhere(outside, services) == served
    for agent in outside.world.agents:
        agent.start()
    assert asked_everywhere(outside, services) == served
    for talk in talks:
        talk.await_answer()
        seen = talk.stop()
        assert (seen["failures"], seen["connects"]) == ([], 1)
    outside.world.remove("far-lines")


SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 0))
"""


def forged(outside: Outside, protocol: str, place: Place, family: str) -> str:
    """A packet that the client marks itself for the far pod, in hexadecimal digits."""
    client, pod, asked = (
        getattr(pair, family)
        for pair in (outside.client.addresses, outside.world.far.addresses, place.at)
    )
    said = (tcp if protocol == "TCP" else udp)(client, 40000, asked, place.port)
    net = V4 if family == "ipv4" else V6
    return bytes(network(marked(net, client, pod, said, (asked, place.port)))).hex()


def test_forged_marks(outside: Outside, services: dict[str, dict[str, Place]]) -> None:
    """Of an address that is no node's: dropped at the backend's node, and counted there."""
    agent = outside.world.agents[1]

    def drops() -> int:
        rows = json.loads(agent.tidegate("show", "drops", "-o", "json").stdout)
        return next(int(row["count"]) for row in rows if row["reason"] == "stranger")

    before = drops()
    for protocol, places in services.items():
        for family in FAMILIES:
            packet = forged(outside, protocol, places["balancer"], family)
            pod = getattr(outside.world.far, family)
            outside.client.run(sys.executable, "-c", SEND, pod, packet)
    until(lambda: drops() == before + 4, "four drops", timeout=5)
