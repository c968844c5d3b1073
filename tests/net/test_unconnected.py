"""One unconnected UDP socket whose service loses an address: each datagram goes where it leads now.

The backend that it talked to lives on, and serves by the service's other addresses.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.bed import Host, Process, datagrams, until
from tests.bed.network import Pair
from tests.net.world import ECHO, FAMILIES, World

pytestmark = pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
SPEC: dict[str, Any] = {"target": ECHO, "protocol": "UDP"}

ASKING = """
import json, socket, sys, time
to = (sys.argv[1], int(sys.argv[2]))
one = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(0.1)
while True:
    try:
        one.sendto(b"who?", to)
        said, sender = one.recvfrom(4096)
        assert sender[:2] == to, sender
        print(json.loads(said)["pod"], flush=True)
    except OSError:
        print("nobody", flush=True)
    time.sleep(0.01)
"""
"""Asks an address over and over by one unconnected socket; prints who answers."""


def ask(client: Host, address: str, port: int) -> Process:
    """Asks on until the cluster ends it; had its first answer."""
    return client.spawn(
        sys.executable, "-IS", "-c", ASKING, address, str(port),
        ready=lambda process: "web-" in process.output,
    )  # fmt: skip


def told_after(asking: Process, change: int) -> set[str]:
    """Who answered since line `change`, but for the question that was under way."""

    def lines() -> list[str]:
        return asking.output.splitlines()[change + 1 :]

    until(lambda: len(lines()) >= 3, "answers", timeout=5)
    return set(lines())


@FAMILY
def test_taken_away(world: World, client: Host, family: str) -> None:
    """An external address taken from its service is nobody's for the very next datagram."""
    name, at = f"taken-{family}-{client.name}", world.vip()
    vip = world.serve(name, [world.near], external_ips=at, **SPEC)
    asking = ask(client, getattr(at, family), 80)
    world.serve(name, [world.near], at=vip, **SPEC)
    assert told_after(asking, len(asking.output.splitlines())) == {"nobody"}
    (row,) = datagrams(client, (getattr(vip, family), 80))
    assert json.loads(row["said"])["pod"] == "web-0"
    world.serve(name, [world.near], at=vip, external_ips=at, **SPEC)
    assert told_after(asking, len(asking.output.splitlines())) == {"web-0"}
    asking.end()


@FAMILY
def test_moved(world: World, client: Host, family: str) -> None:
    """An external address that moves to another service leads there with the next datagram."""
    name, at, vips = f"moves-{family}-{client.name}", world.vip(), (world.vip(), world.vip())

    def owned_by(owner: int) -> None:
        world.write(
            name,
            *objects(world, f"{name}-0", vips[0], at if owner == 0 else None),
            *objects(world, f"{name}-1", vips[1], at if owner == 1 else None, far=True),
        )

    owned_by(0)
    asking = ask(client, getattr(at, family), 80)
    for owner in (1, 0):
        owned_by(owner)
        assert told_after(asking, len(asking.output.splitlines())) == {f"web-{owner}"}
    asking.end()


@FAMILY
def test_node_port_taken_away(world: World, client: Host, family: str) -> None:
    """A node port that its service gave up is nobody's for the very next datagram."""
    name, number = f"given-up-{family}-{client.name}", world.node_port()
    vip = world.serve(name, [world.far], node_port=number, kind="NodePort", **SPEC)
    asking = ask(client, getattr(world.node, family), number)
    world.serve(name, [world.far], at=vip, **SPEC)
    assert told_after(asking, len(asking.output.splitlines())) == {"nobody"}
    asking.end()


def objects(
    world: World, name: str, vip: Pair, external: Pair | None, *, far: bool = False
) -> list[Any]:
    """A UDP service on one of the servers, at an external address or none."""
    pods = [world.far if far else world.near]
    return world.objects(name, pods, vip, external_ips=external or (), **SPEC)
