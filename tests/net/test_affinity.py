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


ROUNDS = """
import json, socket, sys, time
def ask(address):
    with socket.create_connection((address, 80)) as one:
        one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        said = b"".join(iter(lambda: one.recv(4096), b""))
        return json.loads(said.partition(b"\\r\\n\\r\\n")[2])["pod"]
seen, end = [], time.monotonic() + float(sys.argv[1])
while not seen or time.monotonic() < end:
    seen.append([ask(address) for address in sys.argv[2:]])
    time.sleep(0.3)
print(json.dumps(seen))
"""
"""Asks each address every 0.3 s for so many seconds, at least once; a list of pods a round."""


def many(world: World, name: str, count: int, seconds: int) -> list[str]:
    """The IPv4 addresses of so many services with affinity."""
    vips = [world.vip() for _ in range(count)]
    objects = [
        one
        for number, vip in enumerate(vips)
        for one in world.objects(f"{name}-{number}", world.webs, vip, affinity_seconds=seconds)
    ]
    world.write(name, *objects)
    return [vip.ipv4 for vip in vips]


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
    """Each client has a memory of its own: two agree on 32 services once in 2^32 runs."""
    vips = many(world, "apart", 32, LONG)
    assert world.app.python(ROUNDS, "0", *vips) != world.node.python(ROUNDS, "0", *vips)


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


def test_timer_restarts(world: World) -> None:
    """Every new connection starts the time anew: it never ends while they go on coming.

    With 16 services of 1 s, a time that ran out twice each would go unseen once in 2^32 runs.
    """
    rounds = world.app.python(ROUNDS, "3", *many(world, "restarts", 16, 1))
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
    vips = many(world, "survives", 32, LONG)

    def ask() -> list[list[str]]:
        found: list[list[str]] = world.app.python(ROUNDS, "0", *vips)
        return found

    before = ask()
    world.agent.kill()
    assert ask() == before
    world.agent.start()
    assert ask() == before


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
