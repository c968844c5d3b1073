"""Traffic from outside reaches every backend by every address, and the service itself answers.

Also: who sees the client's own address, and who the node's.
"""

from __future__ import annotations

import pytest

from tests.bed import WHOAMI, Host, Outcome, connect, curl, dig
from tests.net.outside import FAMILY, KINDS, PROTOCOL, TWO_NODES, Met, Outside, Place, ask
from tests.net.world import DNS, World, url

pytestmark = TWO_NODES
BACKENDS = ("web-0", "web-1", "n1", "n2")
"""A pod of n1, a pod of n2, and processes of the nodes themselves. Traffic enters at n1."""

Exposed = dict[tuple[str, str], dict[str, Place]]


def host(world: World, name: str) -> Host:
    """The pod or node, or the client outside."""
    hosts: dict[str, Host] = {node.name: node for node in world.cluster.nodes}
    return (world.pods | hosts | {"client": world.cluster.client})[name]


@pytest.fixture(scope="module")
def exposed(outside: Outside) -> Exposed:
    """A service of TCP and one of UDP for each backend."""
    for node in outside.world.cluster.nodes:
        node.nginx()
        node.udp_echo()
    return {
        (name, protocol): outside.expose(
            f"at-{name}-{protocol.lower()}", [host(outside.world, name)], protocol=protocol
        )
        for name in BACKENDS
        for protocol in ("TCP", "UDP")
    }


@FAMILY
@PROTOCOL
@pytest.mark.parametrize(
    "place", [(kind, name) for kind in KINDS for name in BACKENDS], ids="-".join
)
def test_reached(
    outside: Outside, exposed: Exposed, place: tuple[str, str], protocol: str, family: str
) -> None:
    """The backend answers as the service; it sees the client itself if it is on n1, else n1."""
    kind, backend = place
    here = backend in {"web-0", "n1"}
    source = outside.client if here else outside.world.node
    met = outside.ask(protocol, exposed[backend, protocol][kind], family)
    assert met == Met(backend, getattr(source, family))


WAYS = [
    # from, the node that is asked, backend, whose address that sees
    ("app-0", "n2", "web-1", "app-0"),
    ("app-0", "n2", "web-0", "n2"),
    ("app-0", "n2", "n2", "app-0"),
    ("web-0", "n2", "web-0", "n2"),
    ("n1", "n2", "web-1", "n1"),
    ("n1", "n2", "web-0", "n2"),
    ("n1", "n2", "n1", "n2"),
    ("app-1", "n1", "web-1", "n1"),
    ("client", "n2", "web-1", "client"),
    ("client", "n2", "web-0", "n2"),
    ("client", "n2", "n1", "n2"),
]


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_node_port_of_another_node(
    world: World, exposed: Exposed, way: tuple[str, str, str, str], protocol: str, family: str
) -> None:
    """Pods and nodes may ask another node at its node port, also for a backend of their own."""
    client, asked, backend, seen = (host(world, name) for name in way)
    number = exposed[backend.name, protocol]["node_port"].port
    met = ask(client, protocol, getattr(asked, family), number)
    assert met == Met(backend.name, getattr(seen, family))


@FAMILY
def test_every_backend_serves(outside: Outside, family: str) -> None:
    """Of 64 connections from outside each of two backends gets some, here and elsewhere."""
    places = outside.expose(f"mixed-{family}", outside.world.webs)
    for kind in ("node_port", "balancer"):
        place = places[kind]
        rows = connect(outside.client, getattr(place.at, family), place.port, count=64)
        assert {row["errno"] for row in rows} == {None}
        assert {"web-0" in row["said"] for row in rows} == {True, False}


@FAMILY
@pytest.mark.parametrize("backend", ["web-0", "web-1"])
def test_curl_and_dig(outside: Outside, family: str, backend: str) -> None:
    """The programs that people use are served: curl, and dig by UDP and TCP."""
    pod = outside.world.pods[backend]
    name = f"dns-{family}-{backend}"
    dns = outside.expose(name, [pod], protocol="UDP", target=DNS)["balancer"]
    answer = dig(outside.client, getattr(dns.at, family), dns.port, WHOAMI)
    assert (answer.outcome, answer.text) == (Outcome.OK, backend)
    dns = outside.expose(f"{name}-tcp", [pod], target=DNS)["node_port"]
    answer = dig(outside.client, getattr(dns.at, family), dns.port, WHOAMI, tcp=True)
    assert (answer.outcome, answer.text) == (Outcome.OK, backend)
    web = outside.expose(f"{name}-web", [pod])["balancer"]
    page = curl(outside.client, url(getattr(web.at, family)))
    assert (page.outcome, page.json["pod"]) == (Outcome.OK, backend)


@FAMILY
@PROTOCOL
def test_gone(outside: Outside, protocol: str, family: str) -> None:
    """A service that is deleted answers no more: not at its addresses, nor at its node port."""
    name = f"gone-{family}-{protocol.lower()}"
    places = outside.expose(name, [outside.world.far], protocol=protocol)
    assert outside.ask(protocol, places["node_port"], family).server == "web-1"
    outside.world.remove(name)
    assert outside.ask(protocol, places["node_port"], family).server == "ECONNREFUSED"
    for kind in ("balancer", "external", "cluster"):
        met = outside.ask(protocol, places[kind], family, "--timeout", "0.2")
        assert met.server not in {"web-0", "web-1", "peer"}


@FAMILY
def test_what_is_no_service(outside: Outside, exposed: Exposed, family: str) -> None:
    """The nodes' own servers, and pods asked by their own address, are reached as before."""
    assert exposed
    for node in outside.world.cluster.nodes:
        address = getattr(node, family)
        assert ask(outside.client, "TCP", address, 8080).server == node.name
        assert ask(outside.client, "TCP", address, 8081).server == "ECONNREFUSED"
    for pod in outside.world.webs:
        for protocol, number in (("TCP", 8080), ("UDP", 5000)):
            met = ask(outside.client, protocol, getattr(pod, family), number)
            assert met == Met(pod.name, getattr(outside.client, family))
