"""Edge mode as in `deploy/edge`: two balancers behind a router with BIRD, and plain servers.

The kernel's ipip takes the outer headers off at the servers; where it has none, a probe does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Cluster, Node, Talk, datagrams
from tests.bed.edge import ECHO, VIP, WEB, Edge
from tests.bed.host import PROBES
from tests.net.bulk import digest
from tests.net.outside import FAMILY, PROTOCOL, Met, ask
from tests.net.witness import witnessed
from tests.net.world import url

CLIENTS, ROUNDS = 64, 3
TALKS = 6
"""Of each family."""
UDP_PORTS = (20001, 20002, 20003, 20004)


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    """n1 and n2 balance, n3 and n4 serve, the router spreads."""
    with Cluster(nodes=4) as cluster:
        edge = Edge(cluster)
        # Both choose alike, so that it does not matter whom the router leads a client to.
        with witnessed(cluster, edge.agent(edge.balancers[0]), routed=VIP):
            yield edge


@FAMILY
@PROTOCOL
def test_a_plain_server_answers(edge: Edge, protocol: str, family: str) -> None:
    """It sees the client itself, and answers from the service's address."""
    port = WEB if protocol == "TCP" else ECHO
    met = ask(edge.cluster.client, protocol, getattr(VIP, family), port)
    assert met in {
        Met(server.name, getattr(edge.cluster.client, family)) for server in edge.servers
    }


@FAMILY
@PROTOCOL
def test_the_load_is_spread(edge: Edge, protocol: str, family: str) -> None:
    """Over both balancers by the router, and over both servers by them."""
    before = [_received(node) for node in edge.balancers]
    seen = edge.cluster.client.python(
        PROBES / "crowd.py",
        *(protocol.lower(), getattr(VIP, family), str(ECHO), str(CLIENTS), str(ROUNDS)),
    )
    assert (seen["answers"], seen["wrong"], seen["failed"]) == (CLIENTS * ROUNDS, 0, 0)
    assert set(seen["servers"]) == {server.name for server in edge.servers}
    for node, old in zip(edge.balancers, before, strict=True):
        assert _received(node) - old > CLIENTS * ROUNDS / 5


@FAMILY
def test_megabytes(edge: Edge, megabytes: Path, family: str) -> None:
    """20 MB arrive whole both ways: clients send no segment that is too long once wrapped."""
    quiet = ("-q", "--noproxy", "*", "--globoff", "--silent", "--fail", "--max-time", "20")
    place, got = f"{url(getattr(VIP, family), WEB)}files/{family}", megabytes.with_name("got")
    # One connection, since the other server has not got the file.
    edge.cluster.client.run(
        "curl", *quiet, "--upload-file", str(megabytes), place,
        "--next", *quiet, "--output", str(got), place, timeout=42,
    )  # fmt: skip
    assert digest(got) == digest(megabytes)


def test_a_balancer_dies_and_comes_back(edge: Edge) -> None:
    """Every connection goes on, on the same server: both balancers choose alike."""
    talks, servers = _talks(edge, "tcp"), _udp_servers(edge)
    carried = edge.carried(to=ECHO)
    assert len(carried) == len(talks)
    other, victim = sorted(edge.balancers, key=lambda node: carried.count(node.name))
    edge.switch_off(victim)
    edge.await_hops(other)
    _await_answers(talks)
    assert _udp_servers(edge) == servers
    edge.switch_on(victim)
    edge.await_hops(*edge.balancers)
    _await_answers(talks)
    assert _udp_servers(edge) == servers
    _assert_unbroken(talks)


def test_a_balancer_is_drained(edge: Edge) -> None:
    """Nobody notices: the router turns away while the balancer still serves."""
    one, other = edge.balancers
    talks = [*_talks(edge, "tcp"), *_talks(edge, "udp")]
    edge.drain(one)
    edge.await_hops(other)
    edge.agent(one).restart()
    _await_answers(talks)
    edge.announce(one)
    edge.await_hops(*edge.balancers)
    _await_answers(talks)
    _assert_unbroken(talks)


def _received(node: Node) -> int:
    """Packets that came to a node."""
    (shown,) = json.loads(node.run("ip", "-j", "-s", "link", "show", "eth0").stdout)
    return int(shown["stats64"]["rx"]["packets"])


def _talks(edge: Edge, protocol: str) -> list[Talk]:
    """Live connections in both families; patient, as programs are that wait for TCP."""
    client = edge.cluster.client
    vips = VIP * TALKS
    return [Talk(client, protocol, vip, ECHO, "--timeout", "9") for vip in vips]


def _udp_servers(edge: Edge) -> list[str]:
    """Who answers a client's ports, in both families."""
    rows = [
        row
        for port in UDP_PORTS
        for vip in VIP
        for row in datagrams(edge.cluster.client, (vip, ECHO), options=["--source-port", str(port)])
    ]
    return [json.loads(row["said"])["pod"] for row in rows]


def _await_answers(talks: list[Talk]) -> None:
    for talk in talks:
        talk.await_answer()


def _assert_unbroken(talks: list[Talk]) -> None:
    for seen in [talk.stop() for talk in talks]:
        assert (seen["connects"], len(seen["servers"]), seen["failures"]) == (1, 1, [])
