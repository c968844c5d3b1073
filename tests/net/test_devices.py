"""The packet programs on devices: put on, found missing, put back, taken off; others' stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.bed import Host, until
from tests.bed.clients import Outcome, curl
from tests.net.world import World

ALONE = ("--pod-devices", "off")
pytestmark = pytest.mark.parametrize("world", [("one_node", *ALONE)], indirect=True)

SIDES = {"ingress": "lb_in", "egress": "lb_out"}
FOREIGN = (
    "tc", "filter", "add", "dev", "eth0", "ingress", "prio", "500", "bpf", "da", "bytecode",
)  # fmt: skip
DROP = "1,6 0 0 2"
"""Classic BPF: return TC_ACT_SHOT."""
RANGE = "/proc/sys/net/ipv4/ip_local_reserved_ports"


def filters(node: Host, device: str = "eth0") -> dict[str, int]:
    """Our filters: the program's id by side."""
    found = {}
    for side, name in SIDES.items():
        shown = node.run("tc", "-j", "filter", "show", "dev", device, side).stdout
        for one in json.loads(shown or "[]"):
            options = one.get("options", {})
            if options.get("bpf_name", "").startswith(f"tidegate/{name}"):
                assert options["direct-action"] is True
                found[side] = options["prog"]["id"]
    return found


def feature(world: World) -> dict[str, Any]:
    """What status says of the devices."""
    found: dict[str, Any] = world.agent.status()["features"]["north-south"]
    return found


def await_feature(world: World, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What status says once it is good, revision by revision."""
    status = world.agent.status()
    while not good(status["features"]["north-south"]):
        status = world.agent.await_applied(status["revision"])
    found: dict[str, Any] = status["features"]["north-south"]
    return found


def xdp_mode(world: World, device: str) -> str | None:
    """As status has it."""
    modes: dict[str, str] = world.agent.status()["features"]["xdp"]["devices"]
    return modes.get(device)


def restarted(world: World, *flags: str) -> None:
    """The agent with other flags."""
    world.agent.flags = (*ALONE, *flags)
    world.agent.restart()


def answered(world: World) -> bool:
    """Does the router answer a pod, through eth0?"""
    answer = curl(world.near, "http://192.168.77.1:9/", timeout=1.0)
    assert answer.outcome in (Outcome.REFUSED, Outcome.TIMEOUT)
    return answer.outcome is Outcome.REFUSED


def test_attached_where_the_default_route_is(world: World) -> None:
    """Both sides of eth0 have our programs, and status says so."""
    assert filters(world.node).keys() == SIDES.keys()
    assert feature(world) == {"state": "on", "devices": {"eth0": "tc"}}
    assert filters(world.node, "v-web-0") == {}


def test_restart_replaces_nothing(world: World) -> None:
    """The same programs keep their ids over a restart, and while no agent runs."""
    before = filters(world.node)
    world.agent.kill()
    assert filters(world.node) == before
    world.agent.start()
    assert filters(world.node) == before


def test_another_text_replaces_in_place(world: World) -> None:
    """Tables of another size need other programs; they take the place of the old ones."""
    before = filters(world.node)
    restarted(world, "--max-services", "4096")
    after = filters(world.node)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    restarted(world)


def test_detached_is_put_back_at_once(world: World) -> None:
    """The kernel tells when a program is taken off, and so it is back before any check."""
    before = filters(world.node)
    revision = world.agent.status()["revision"]
    world.node.run("tc", "filter", "del", "dev", "eth0", "ingress")
    world.agent.await_applied(revision)
    assert filters(world.node) == before
    assert world.agent.tidegate("verify").returncode == 0


def test_detached_while_no_agent_runs(world: World) -> None:
    """The next start puts it back."""
    before = filters(world.node)
    world.agent.stop()
    world.node.run("tc", "filter", "del", "dev", "eth0", "egress")
    world.agent.start()
    assert filters(world.node) == before


def test_device_comes_and_goes(world: World) -> None:
    """A named device that is missing is a line in status; it is served whenever it is there."""
    restarted(world, "--devices", "eth0,late0")
    said = feature(world)
    assert (said["state"], said["devices"]) == ("degraded", {"eth0": "tc"})
    assert said["reason"] == "late0 is missing"
    assert "late0 is missing" in world.agent.tidegate("status", check=False).stdout
    for _ in range(2):
        world.node.run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
        await_feature(world, lambda one: one["devices"].keys() == {"eth0", "late0"})
        assert filters(world.node, "late0").keys() == SIDES.keys()
        until(lambda: xdp_mode(world, "late0") == "native", "XDP on late0", timeout=10)
        world.node.run("ip", "link", "del", "late0")
        await_feature(world, lambda one: "late0 is missing" in one.get("reason", ""))
    restarted(world)


def test_a_driver_without_native_xdp(world: World) -> None:
    """A bridge has it in front of the stack; where native was asked for, tc serves, and why."""
    world.node.run("ip", "link", "add", "bridge0", "type", "bridge")
    world.node.run("ip", "link", "set", "bridge0", "up")
    try:
        restarted(world, "--devices", "eth0,bridge0")
        assert xdp_mode(world, "eth0") == "native"
        until(lambda: xdp_mode(world, "bridge0") == "generic", "generic XDP", timeout=10)
        restarted(world, "--devices", "eth0,bridge0", "--xdp", "native")
        assert xdp_mode(world, "bridge0") is None
        said = world.agent.status()["features"]["xdp"]
        assert (said["state"], said["devices"]) == ("degraded", {"eth0": "native"})
        assert "bridge0: its driver has no native XDP" in said["reason"]
        assert filters(world.node, "bridge0").keys() == SIDES.keys()
    finally:
        world.node.run("ip", "link", "del", "bridge0")
        restarted(world)


def test_device_no_longer_named(world: World) -> None:
    """A device that is not named any more is left, with its empty qdisc."""
    world.node.run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
    restarted(world, "--devices", "eth0,other0")
    assert filters(world.node, "other0").keys() == SIDES.keys()
    restarted(world, "--devices", "eth0")
    assert "clsact" not in world.node.run("tc", "qdisc", "show", "dev", "other0").stdout
    assert filters(world.node).keys() == SIDES.keys()
    world.node.run("ip", "link", "del", "other0")
    restarted(world)


def test_foreign_filter_and_cleanup(world: World) -> None:
    """Cleanup takes our filters and ports; another's filter still drops, its ports stay."""
    node = world.node
    world.agent.stop()
    world.agent.tidegate("cleanup")
    assert "clsact" not in node.run("tc", "qdisc", "show", "dev", "eth0").stdout
    node.run("sh", "-c", f"echo 8080,50000 > {RANGE}")
    world.agent.start()
    assert node.run("cat", RANGE).stdout == "8080,49152-65535\n"
    assert answered(world)
    node.run(*FOREIGN, DROP)
    world.agent.restart()
    assert not answered(world)
    world.agent.stop()
    world.agent.tidegate("cleanup")
    assert filters(node) == {}
    assert not answered(world)
    assert node.run("cat", RANGE).stdout == "8080,50000\n"
    node.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    assert answered(world)
    world.agent.start()


def test_without_forwarding(world: World) -> None:
    """A node that does not forward is told what it misses; it is no fault."""
    world.node.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    assert "net.ipv4.ip_forward is 0" in feature(world)["reason"]
    assert world.agent.tidegate("status").returncode == 0
    world.node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    assert "reason" not in feature(world)
