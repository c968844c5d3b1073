"""What is no plain packet, from outside: refusals, pings, errors, fragments, small ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Outcome, curl, datagrams, ping
from tests.net.bulk import to_and_fro
from tests.net.outside import FAMILY, KINDS, PROTOCOL, TWO_NODES, Outside, ask
from tests.net.small import SMALL, made_small
from tests.net.world import ECHO, World, url

pytestmark = TWO_NODES
AT_ONCE = 0.5
"""Seconds in which a refusal has come."""
BACKENDS = ("web-0", "web-1")
BACKEND = pytest.mark.parametrize("backend", BACKENDS)
CLOSED = 9
"""A port where no pod listens."""


@pytest.fixture(params=[False, True], ids=["whole", "unfinished"])
def checksums(request: pytest.FixtureRequest, world: World) -> Iterator[None]:
    """As from a wire; and as from a virtual machine, which leaves them to the sending device."""
    if not request.param:
        yield
        return

    def switch(state: str) -> None:
        world.cluster.client.run("ethtool", "-K", "eth0", "tx", state)
        world.cluster.claim.enter("wire", f"ethtool -K n1 tx {state} > /dev/null")

    try:
        switch("on")
        yield
    finally:
        switch("off")


@FAMILY
@pytest.mark.usefixtures("checksums")
def test_refused_at_once(outside: Outside, family: str) -> None:
    """A service without endpoints refuses curl and datagrams, at each of its addresses."""
    for protocol in ("TCP", "UDP"):
        name = f"refused-{family}-{protocol.lower()}"
        for kind, place in outside.expose(name, [], protocol=protocol).items():
            address = getattr(place.at, family)
            if protocol == "UDP":
                assert ask(outside.client, "UDP", address, place.port).server == "ECONNREFUSED"
                continue
            answer = curl(outside.client, url(address, place.port))
            assert (answer.outcome, kind) == (Outcome.REFUSED, kind)
            assert answer.seconds < AT_ONCE
        outside.world.remove(name)


@FAMILY
@BACKEND
def test_what_the_backend_refuses(outside: Outside, backend: str, family: str) -> None:
    """No process behind the port: the backend's own refusal reaches the client, of both kinds."""
    for protocol in ("TCP", "UDP"):
        name = f"closed-{family}-{backend}-{protocol.lower()}"
        pod = outside.world.pods[backend]
        places = outside.expose(name, [pod], protocol=protocol, target=CLOSED)
        for kind in KINDS:
            assert outside.ask(protocol, places[kind], family).server == "ECONNREFUSED"
        outside.world.remove(name)


@FAMILY
@BACKEND
def test_ping(outside: Outside, backend: str, family: str) -> None:
    """A service's address answers while it has a backend; and a node's own at all times."""
    world, name = outside.world, f"ping-{family}-{backend}"
    places = outside.expose(name, [world.pods[backend]])

    def asked(kind: str) -> str | None:
        (row,) = ping(outside.client, getattr(places[kind].at, family), "--timeout", "0.5")
        answerer: str | None = row["from"]
        return answerer

    for kind in ("balancer", "external", "cluster"):
        assert asked(kind) == getattr(places[kind].at, family)
    outside.expose(name, [], places=places)
    assert asked("balancer") is None
    assert asked("node_port") == getattr(world.node, family)
    outside.expose(name, [world.pods[backend]], places=places)
    assert asked("balancer") == getattr(places["balancer"].at, family)
    world.remove(name)
    assert asked("balancer") is None


@FAMILY
@BACKEND
def test_datagrams_of_4000_octets(outside: Outside, backend: str, family: str) -> None:
    """They pass in fragments both ways, many in a row, by every address."""
    pod = outside.world.pods[backend]
    places = outside.expose(f"long-{family}-{backend}", [pod], protocol="UDP", target=ECHO)
    targets = [(getattr(places[kind].at, family), places[kind].port) for kind in KINDS]
    rows = datagrams(outside.client, *targets * 5, options=["--size", "4000"])
    assert [row["errno"] for row in rows] == [None] * 20
    for row, target in zip(rows, targets * 5, strict=True):
        said = json.loads(row["said"])
        assert (said["pod"], tuple(row["from"])) == (backend, target)
        assert said["text"] == "who?".ljust(4000, ".")


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest, world: World) -> Iterator[str]:
    """Only 1300 octets fit somewhere on the way, of which neither end knows."""
    with made_small(world, request.param, 1300):
        yield request.param


@FAMILY
@BACKEND
def test_path_mtu(outside: Outside, small: str, backend: str, family: str, tmp_path: Path) -> None:
    """Megabytes arrive whole both ways: each end learns how long its packets may be."""
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 4 * 4096)
    name = f"pmtu-{small.replace(' ', '-')}-{family}-{backend}"
    place = outside.expose(name, [outside.world.pods[backend]])["balancer"]
    before = outside.drops("too_big")
    to_and_fro(outside.client, url(getattr(place.at, family), place.port), sent)
    told = outside.drops("too_big") > before
    assert told == (small == "from here" and backend == "web-1")


@FAMILY
@PROTOCOL
def test_answers_are_counted(outside: Outside, protocol: str, family: str) -> None:
    """A refusal is one packet of `no_backend`."""
    name = f"counted-{family}-{protocol.lower()}"
    place = outside.expose(name, [], protocol=protocol)["balancer"]
    before = outside.drops("no_backend")
    outside.ask(protocol, place, family)
    assert outside.drops("no_backend") == before + 1
