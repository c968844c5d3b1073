"""The probes report what their sockets see; shown on plain connections, without a service."""

from __future__ import annotations

import pytest

from tests.bed import Cluster, Talk, connect, datagrams, until

MAPPED = [
    # family, options, what stands before the address in the socket's view
    ("ipv4", (), ""),
    ("ipv6", (), ""),
    ("ipv4", ("--mapped",), "::ffff:"),
]


@pytest.mark.parametrize(("family", "options", "prefix"), MAPPED)
def test_connect(one_node: Cluster, family: str, options: tuple[str, ...], prefix: str) -> None:
    """Each connect shows both ends and the server's words; a closed port shows its errno."""
    web, _, app = one_node.nodes[0].pods
    address = getattr(web, family)
    rows = connect(app, address, 8080, *options, count=2)
    assert len(rows) == 2
    for row in rows:
        assert row["errno"] is None
        assert row["peer"] == [prefix + address, 8080]
        assert row["local"][0] == prefix + getattr(app, family)
        assert '"pod": "web-0"' in row["said"]
        assert row["seconds"] < 2
    assert connect(app, address, 9, *options)[0]["errno"] == "ECONNREFUSED"


@pytest.mark.parametrize("address", ["10.96.0.10", "fd00:10:96::a"])
def test_connect_into_the_void(one_node: Cluster, address: str) -> None:
    """A connect without any answer ends by the given timeout."""
    (row,) = connect(one_node.nodes[0].pods[2], address, 80, "--timeout", "0.2")
    assert row["errno"] == "ETIMEDOUT"
    assert 0.2 <= row["seconds"] < 2


@pytest.mark.parametrize(("family", "options", "prefix"), MAPPED)
@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
def test_datagrams(
    one_node: Cluster, family: str, options: tuple[str, ...], prefix: str, *, connected: bool
) -> None:
    """One socket asks two servers in turn; each answer shows who sent it."""
    first, second, app = one_node.nodes[0].pods
    targets = [(getattr(pod, family), 5000) for pod in (first, second, first)]
    rows = datagrams(app, *targets, options=[*options, *(["--connect"] if connected else [])])
    assert [row["errno"] for row in rows] == [None] * 3
    expected = [[prefix + address, port] for address, port in targets]
    assert [row["from"] for row in rows] == expected
    assert [row["peer"] for row in rows] == (expected if connected else [None] * 3)
    for row, pod in zip(rows, (first, second, first), strict=True):
        assert f'"pod": "{pod.name}"' in row["said"]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_datagram_failures(one_node: Cluster, family: str) -> None:
    """A closed port refuses a connected socket; an unconnected one hears nothing."""
    web, _, app = one_node.nodes[0].pods
    closed = (getattr(web, family), 9)
    assert datagrams(app, closed, options=["--connect"])[0]["errno"] == "ECONNREFUSED"
    assert datagrams(app, closed, options=["--timeout", "0.1"])[0]["errno"] == "ETIMEDOUT"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_talk(one_node: Cluster, protocol: str, family: str) -> None:
    """A talk goes on over one connection, and reports the gap that a server's absence makes."""
    web, _, app = one_node.nodes[0].pods
    serve = web.line_echo if protocol == "tcp" else web.udp_echo
    port = 7001
    server = serve(port)
    undisturbed = Talk(app, protocol, getattr(web, family), port, "--interval", "0.001").stop()
    assert undisturbed["answers"] >= 1
    assert undisturbed["connects"] == 1
    assert undisturbed["failures"] == []

    talk = Talk(app, protocol, getattr(web, family), port)
    server.end()
    until(lambda: len(talk.events) > 1, "failure", timeout=5)
    server = serve(port)
    until(lambda: talk.events[-1] == "answered", "second answer", timeout=5)
    report = talk.stop()
    server.end()
    assert report["connects"] >= 2
    assert set(report["servers"]) == {"web-0"}
    assert report["failures"][0]["errno"] in {"ECONNRESET", "ECONNREFUSED"}
    assert report["failures"][-1]["gap"] > 0
