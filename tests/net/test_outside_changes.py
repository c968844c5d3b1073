"""Backends, services and agents that change under traffic from outside: flows go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.bed import Talk
from tests.net.outside import FAMILY, PROTOCOL, TWO_NODES, Outside, Place
from tests.net.world import ECHO, FAMILIES, World

pytestmark = TWO_NODES
LINES = 7000


@pytest.fixture(scope="module", autouse=True)
def _lines(world: World) -> None:
    for pod in world.webs:
        pod.line_echo(LINES)


def talk_to(outside: Outside, protocol: str, place: Place, family: str) -> Talk:
    """A client outside that goes on asking over one connection."""
    return Talk(outside.client, protocol.lower(), getattr(place.at, family), place.port)


def spec_of(protocol: str) -> dict[str, Any]:
    """A line server for TCP, an echo server for UDP."""
    return {"protocol": protocol, "target": LINES if protocol == "TCP" else ECHO}


def unbroken(talk: Talk) -> set[str]:
    """Whom it met; it went on over its first connection until now, and does so still."""
    seen = talk.stop()
    assert (seen["failures"], seen["connects"]) == ([], 1)
    assert seen["answers"] > 1
    return set(seen["servers"])


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("stays", ["web-0", "web-1"])
def test_others_come_and_go(outside: Outside, protocol: str, family: str, stays: str) -> None:
    """A flow keeps its backend while others come and go."""
    world, spec = outside.world, spec_of(protocol)
    name = f"others-{protocol.lower()}-{family}-{stays}"
    one = [world.pods[stays]]
    places = outside.expose(name, one, **spec)
    talk = talk_to(outside, protocol, places["balancer"], family)
    for _ in range(5):
        outside.expose(name, world.webs, places=places, **spec)
        outside.expose(name, one, places=places, **spec)
    assert unbroken(talk) == {stays}


@FAMILY
@pytest.mark.parametrize("leaves", ["web-0", "web-1"])
def test_tcp_flow_of_one_that_left(outside: Outside, family: str, leaves: str) -> None:
    """A TCP connection goes on with a backend that left its service, and without any backend."""
    world, spec, name = outside.world, spec_of("TCP"), f"left-{family}-{leaves}"
    places = outside.expose(name, [world.pods[leaves]], **spec)
    talk = talk_to(outside, "TCP", places["node_port"], family)
    (other,) = (pod for pod in world.webs if pod.name != leaves)
    outside.expose(name, [other], places=places, **spec)
    outside.expose(name, [], places=places, **spec)
    assert unbroken(talk) == {leaves}


@FAMILY
def test_tcp_flow_of_a_deleted_service(outside: Outside, family: str) -> None:
    """A TCP connection goes on when its service is deleted."""
    name = f"deleted-{family}"
    places = outside.expose(name, [outside.world.far], **spec_of("TCP"))
    talk = talk_to(outside, "TCP", places["balancer"], family)
    outside.world.remove(name)
    assert unbroken(talk) == {"web-1"}


@FAMILY
@pytest.mark.parametrize("leaves", ["web-0", "web-1"])
def test_udp_flow_of_one_that_left(outside: Outside, family: str, leaves: str) -> None:
    """Datagrams of a flow whose backend is gone go to another, on the very same socket."""
    world, spec, name = outside.world, spec_of("UDP"), f"gone-{family}-{leaves}"
    places = outside.expose(name, [world.pods[leaves]], **spec)
    talk = talk_to(outside, "UDP", places["balancer"], family)
    (other,) = (pod for pod in world.webs if pod.name != leaves)
    outside.expose(name, [other], places=places, **spec)
    later = talk_to(outside, "UDP", places["balancer"], family)  # meanwhile the first talks on
    assert set(later.stop()["servers"]) == {other.name}
    assert unbroken(talk) == {leaves, other.name}


@FAMILY
@PROTOCOL
def test_none_and_back(outside: Outside, protocol: str, family: str) -> None:
    """A service that lost all its endpoints serves again as soon as it has one."""
    world, spec, name = outside.world, spec_of(protocol), f"back-{protocol.lower()}-{family}"
    places = outside.expose(name, [world.near], **spec)
    outside.expose(name, [], places=places, **spec)
    outside.expose(name, [world.far], places=places, **spec)
    talk = talk_to(outside, protocol, places["balancer"], family)
    assert set(talk.stop()["servers"]) == {"web-1"}


@pytest.fixture(scope="module")
def places(outside: Outside) -> dict[tuple[str, str], dict[str, Place]]:
    """A service of each protocol at a backend here, and at one elsewhere."""
    return {
        (protocol, pod.name): outside.expose(
            f"flows-{protocol.lower()}-{pod.name}", [pod], **spec_of(protocol)
        )
        for protocol in ("TCP", "UDP")
        for pod in outside.world.webs
    }


@contextmanager
def talking(outside: Outside, places: dict[tuple[str, str], dict[str, Place]]) -> Iterator[None]:
    """Flows of each protocol, family and backend, through which nothing may fail."""
    with ExitStack() as stack:
        for (protocol, _), where in places.items():
            for family in FAMILIES:
                talk = talk_to(outside, protocol, where["balancer"], family)
                stack.callback(unbroken, talk)
        yield


@pytest.mark.parametrize(
    "flags", [(), ("--max-backends", "4096", "--max-affinity", "256")], ids=["same", "replaced"]
)
def test_agent_dead_and_back(
    outside: Outside, places: dict[tuple[str, str], dict[str, Place]], flags: tuple[str, ...]
) -> None:
    """Killed, dead and started again, with the same programs or with others: no flow breaks."""
    agent = outside.world.agent
    with talking(outside, places):
        agent.kill()
        for (protocol, backend), where in places.items():
            if protocol == "UDP":
                assert outside.ask(protocol, where["node_port"], "ipv4").server == backend
        agent.flags = flags
        agent.start()
        for (protocol, backend), where in places.items():
            if protocol == "UDP":
                assert outside.ask(protocol, where["node_port"], "ipv6").server == backend
