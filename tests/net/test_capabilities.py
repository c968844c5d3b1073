"""The agent does all its work with the capabilities that the DaemonSet names, and needs each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed import BedError, Cluster, Outcome, curl, until
from tests.bed.network import Pair
from tests.net.world import ECHO, World, url

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "tidegate.yaml"
HELD = """
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.settimeout(20)
    one.connect((sys.argv[1], 80))
    one.send(b"x")
    one.recv(4096)
    print("answered", flush=True)
    try:
        one.recv(4096)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
"""A connected UDP socket, and how it ends."""


def granted() -> list[str]:
    """The capabilities of the agent's container, as setpriv(1) names them."""
    objects = yaml.safe_load_all(MANIFEST.read_text())
    (pod,) = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "DaemonSet"]
    held: Any = pod["containers"][0]["securityContext"]["capabilities"]
    assert held["drop"] == ["ALL"]
    return [name.lower() for name in held["add"]]


@pytest.fixture
def world(one_node: Cluster, tmp_path: Path) -> Iterator[World]:
    """No agent yet."""
    world = World(one_node, tmp_path)
    try:
        yield world
    finally:
        world.close()


def start(monkeypatch: pytest.MonkeyPatch, world: World, names: list[str]) -> None:
    """An agent with these capabilities and no other; commands of the CLI have all."""
    bounded = f"setpriv --bounding-set=-all,{','.join(f'+{name}' for name in names)}"
    monkeypatch.setenv("TIDEGATE", f"{bounded} {sys.executable} -m lb")
    try:
        world.start("--repair-interval", "0.3")
    finally:
        monkeypatch.delenv("TIDEGATE")


def services(world: World) -> Pair:
    """One with source ranges and a node port, so that every program is needed; one of UDP."""
    world.serve(
        "web", world.webs, node_port=30080, kind="LoadBalancer",
        load_balancer=[{"ip": "203.0.113.9"}], source_ranges=["192.0.2.0/24"],
    )  # fmt: skip
    return world.serve("echo", world.webs, target=ECHO, protocol="UDP")


def ends(world: World, at: Pair) -> bool:
    """Does the owner of a UDP socket learn that its service is gone?"""
    process = world.app.spawn(
        sys.executable, "-IS", "-c", HELD, at.ipv4, ready=lambda one: "answered" in one.output
    )
    world.remove("echo")
    try:
        until(lambda: "ConnectionAborted" in process.output, "the end", timeout=3, process=process)
    except BedError:
        return False
    return True


def test_these_are_enough(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Sockets, devices, drops in silence, ended sockets, repairs, and another start."""
    start(monkeypatch, world, granted())
    vip = services(world)
    status = world.agent.status()
    assert status["healthy"]
    assert curl(world.app, url(world.node.ipv4, 30080)).outcome is Outcome.OK
    assert curl(world.cluster.client, url(world.node.ipv4, 30080)).outcome is Outcome.OK
    assert ends(world, vip)
    status = world.agent.status()
    count = status["repairs"]["pin"]
    (world.agent.bpffs / "links" / "connect4").unlink()
    while status["repairs"]["pin"] == count:
        status = world.agent.await_applied(status["revision"])
    assert "Operation not permitted" not in world.agent.log
    world.agent.stop()
    world.agents.clear()
    start(monkeypatch, world, granted())
    assert world.agent.status()["healthy"]


@pytest.mark.parametrize("missing", ["net_admin", "sys_admin", "sys_ptrace"])
def test_each_is_needed(monkeypatch: pytest.MonkeyPatch, world: World, missing: str) -> None:
    """Without one the agent does not start, or cannot serve devices, or cannot end sockets.

    NET_RAW is for iptables of the older kind alone (`test_takeover`).
    """
    assert missing in granted()
    held = [name for name in granted() if name != missing]
    if missing == "sys_admin":
        held += ["bpf", "perfmon"]  # which it holds
    try:
        start(monkeypatch, world, held)
    except BedError:
        # Where the programs are not in the cache: bcc asks for tables by their ids.
        return
    vip = services(world)
    healthy = world.agent.status()["healthy"]
    assert not (healthy and ends(world, vip))
