"""Traffic from outside by XDP in the driver, in front of the stack, and by tc alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.net.outside import FAMILY, PROTOCOL, Met, Outside, Place
from tests.net.world import World

MODES = ("native", "generic", "off")
pytestmark = pytest.mark.parametrize(
    "world", [("two_nodes", "--xdp", mode) for mode in MODES], ids=MODES, indirect=True
)


def mode_of(world: World) -> str:
    """What the agent was asked for."""
    return world.agent.flags[1]


def feature(world: World) -> dict[str, Any]:
    """What status says of XDP."""
    found: dict[str, Any] = world.agent.status()["features"]["xdp"]
    return found


def in_force(world: World) -> str:
    """What the kernel says of eth0 of n1."""
    (link,) = json.loads(world.node.run("ip", "-j", "-d", "link", "show", "eth0").stdout)
    return {1: "native", 2: "generic", 4: "many"}[link["xdp"]["mode"]] if "xdp" in link else "off"


@pytest.fixture(scope="module")
def services(outside: Outside) -> dict[str, dict[str, Place]]:
    """One of TCP and one of UDP, with a backend on each node."""
    return {
        protocol: outside.expose(protocol.lower(), outside.world.webs, protocol=protocol)
        for protocol in ("TCP", "UDP")
    }


@FAMILY
@PROTOCOL
def test_both_backends_answer(
    outside: Outside, services: dict[str, dict[str, Place]], protocol: str, family: str
) -> None:
    """The one here sees the client, the one on the other node sees this node."""
    world = outside.world
    wanted = {
        Met("web-0", getattr(outside.client, family)),
        Met("web-1", getattr(world.node, family)),
    }
    place = services[protocol]["balancer"]
    met = {outside.ask(protocol, place, family) for _ in range(30)}
    assert met == wanted


def test_status_says_what_is_in_force(outside: Outside) -> None:
    """As the kernel has it; without XDP, a reason."""
    world = outside.world
    mode = mode_of(world)
    said = feature(world)
    assert in_force(world) == mode
    assert said["devices"] == ({} if mode == "off" else {"eth0": mode})
    assert said["state"] == ("off" if mode == "off" else "on")
    assert mode != "off" or "tc" in said["reason"]


def test_it_stays_while_the_agent_is_away(
    outside: Outside, services: dict[str, dict[str, Place]]
) -> None:
    """Killed and started again: the same program is on the device all the time."""
    world = outside.world
    before = in_force(world)
    world.agent.kill()
    assert in_force(world) == before
    assert outside.ask("TCP", services["TCP"]["balancer"], "ipv4").server in {"web-0", "web-1"}
    world.agent.start()
    assert in_force(world) == before
    assert world.agent.tidegate("verify").returncode == 0


def test_a_program_of_somebody_else_stays(
    outside: Outside, services: dict[str, dict[str, Place]]
) -> None:
    """The device is served by tc, status says why; once it went, XDP is back at the next look."""
    world = outside.world
    mode = mode_of(world)
    pinned = str(next(world.agent.bpffs.glob("programs/*/lb_xdp"), "")) or None
    if mode == "off":
        assert pinned is None  # not even compiled
        return
    assert pinned
    world.agent.stop()
    for link in world.agent.bpffs.glob("links/xdp-*"):
        link.unlink()
    assert in_force(world) == "off"
    how = {"native": "xdpdrv", "generic": "xdpgeneric"}[mode]
    world.node.run("ip", "link", "set", "eth0", how, "pinned", pinned)
    world.agent.start()
    said = feature(world)
    assert said["state"] == "degraded"
    assert "somebody else's" in said["reason"]
    assert outside.ask("TCP", services["TCP"]["balancer"], "ipv4").server in {"web-0", "web-1"}
    world.node.run("ip", "link", "set", "eth0", how, "off")
    world.agent.restart()
    assert feature(world)["devices"] == {"eth0": mode}
