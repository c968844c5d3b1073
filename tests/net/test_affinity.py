"""Session affinity: a client keeps its backend, for its time, and over what happens meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bed import Host, connect, datagrams, until
from tests.net.world import ECHO, FAMILIES, World

FAMILY = pytest.mark.parametrize("family", FAMILIES)
LONG = 1000
TRIES = 20
"""Without affinity these would all meet one of two backends once in 2^19 runs."""


def visited(client: Host, address: str, number: int = 80, tries: int = TRIES) -> set[str]:
    """The pods that TCP connects reach."""
    rows = connect(client, address, number, count=tries)
    return {json.loads(row["said"])["pod"] for row in rows}


def only(found: set[str]) -> str:
    """The one member."""
    (one,) = found
    return one


def remembered(world: World, name: str) -> list[dict[str, Any]]:
    """The rows of `show affinity` for a service."""
    shown = world.agent.tidegate("show", "affinity", "-o", "json").stdout
    return [row for row in json.loads(shown) if row["name"] == name]


@FAMILY
def test_sticks(world: World, client: Host, family: str) -> None:
    """All connections of a network namespace go to one backend, by TCP and by UDP."""
    name = f"sticky-{family}-{client.name}"
    vip = world.serve(name, world.webs, affinity_seconds=LONG)
    only(visited(client, getattr(vip, family)))
    udp = world.serve(f"{name}-udp", world.webs, affinity_seconds=LONG, target=ECHO, protocol="UDP")
    rows = [
        row
        for how in ((), ("--connect",))
        for _ in range(8)
        for row in datagrams(client, (getattr(udp, family), 80), options=how)
    ]
    only({json.loads(row["said"])["pod"] for row in rows})


def test_clients_are_apart(world: World) -> None:
    """Each client has a memory of its own: with 12 services some two clients differ."""
    differ = []
    for number in range(12):
        vip = world.serve(f"apart-{number}", world.webs, affinity_seconds=LONG)
        found = [only(visited(one, vip.ipv4, tries=3)) for one in (world.app, world.node)]
        differ.append(len(set(found)) == 2)
    assert any(differ)


def test_shared_by_frontends(world: World, client: Host) -> None:
    """Cluster IP, node port and external IP share the memory; the families do not have to."""
    number, external = world.node_port(), world.vip()
    vip = world.serve(
        f"shared-{client.name}", world.webs, affinity_seconds=LONG, node_port=number,
        external_ips=external,
    )  # fmt: skip
    for own, other, node_ip in zip(vip, external, world.node.addresses, strict=True):
        first = visited(client, own, tries=2)
        assert visited(client, node_ip, number) == first
        assert visited(client, other) == first


def test_expires(world: World) -> None:
    """The memory ends its time after the last new connection: a client then meets both again."""
    vip = world.serve("expires", world.webs, affinity_seconds=1)
    first = visited(world.app, vip.ipv4, tries=2)
    until(lambda: not remembered(world, "expires"), "end of the memory", timeout=5)
    again = set(first)

    def meets_another() -> bool:
        again.update(visited(world.app, vip.ipv4, tries=1))
        if len(again) == 1:
            until(lambda: not remembered(world, "expires"), "end of the memory", timeout=5)
        return len(again) == 2

    until(meets_another, "another choice", timeout=60)


BUSY = """
import json, socket, sys, time
def ask(address):
    with socket.create_connection((address, 80)) as one:
        one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        said = b"".join(iter(lambda: one.recv(4096), b""))
        return json.loads(said.partition(b"\\r\\n\\r\\n")[2])["pod"]
seen, end = [], time.monotonic() + 3
while time.monotonic() < end:
    seen.append([ask(address) for address in sys.argv[1:]])
    time.sleep(0.3)
print(json.dumps(seen))
"""
"""Asks each address every 0.3 s for 3 s; a list of pods a round."""


def test_timer_restarts(world: World) -> None:
    """Every new connection starts the time anew: it never ends while they go on coming.

    With six services of 1 s, a time that ran out twice each would go unseen once in 2^12 runs.
    """
    vips = [
        world.serve(f"restarts-{number}", world.webs, affinity_seconds=1).ipv4
        for number in range(6)
    ]
    rounds = world.app.python(BUSY, *vips)
    assert len(rounds) > 5
    assert rounds == [rounds[0]] * len(rounds)


@FAMILY
def test_backend_goes(world: World, family: str) -> None:
    """A client whose backend goes gets another, and keeps that when the first comes back."""
    name = f"goes-{family}"
    vip = world.serve(name, world.webs, affinity_seconds=LONG)
    own = getattr(vip, family)
    first = only(visited(world.app, own, tries=2))
    others = [pod for pod in world.webs if pod.name != first]
    world.serve(name, others, at=vip, affinity_seconds=LONG)
    assert visited(world.app, own) == {others[0].name}
    world.serve(name, world.webs, at=vip, affinity_seconds=LONG)
    assert visited(world.app, own) == {others[0].name}


def test_off_and_on(world: World) -> None:
    """Off acts on the next connection; on again starts with an empty memory."""
    vip = world.serve("switched", world.webs, affinity_seconds=LONG)
    only(visited(world.app, vip.ipv4))
    assert len(remembered(world, "switched")) == 1
    world.serve("switched", world.webs, at=vip)
    assert visited(world.app, vip.ipv4, tries=2 * TRIES) == {"web-0", "web-1"}
    world.serve("switched", world.webs, at=vip, affinity_seconds=LONG)
    assert remembered(world, "switched") == []
    only(visited(world.app, vip.ipv4))


def test_survives_the_agent(world: World) -> None:
    """The memory outlives a killed agent and its successor's start."""
    names = [f"survives-{number}" for number in range(4)]
    vips = [world.serve(name, world.webs, affinity_seconds=LONG) for name in names]
    before = [visited(world.app, vip.ipv4, tries=3) for vip in vips]
    rows = [remembered(world, name)[0]["backend"] for name in names]
    world.agent.kill()
    assert [visited(world.app, vip.ipv4, tries=3) for vip in vips] == before
    world.agent.start()
    assert [visited(world.app, vip.ipv4, tries=3) for vip in vips] == before
    assert [remembered(world, name)[0]["backend"] for name in names] == rows


def test_show(world: World) -> None:
    """`show affinity` names service, client, backend and what is left of the time."""
    vip = world.serve("shown", [world.near], affinity_seconds=LONG)
    visited(world.app, vip.ipv4, tries=1)
    visited(world.app, vip.ipv6, tries=1)
    visited(world.node, vip.ipv4, tries=1)
    rows = sorted(remembered(world, "shown"), key=lambda row: (row["family"], row["client"]))
    four, six = f"{world.near.ipv4}:8080", f"[{world.near.ipv6}]:8080"
    assert sorted(row["backend"] for row in rows) == sorted([four, four, six])
    for row in rows:
        assert (row["namespace"], row["protocol"]) == ("default", "TCP")
        assert row["client"].startswith("netns:")
        assert LONG - 60 <= row["seconds_left"] <= LONG
    assert len({row["client"] for row in rows}) == 2
    assert "default/shown" in world.agent.tidegate("show", "affinity").stdout
