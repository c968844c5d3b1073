"""A pod's hostPort on its node, as the portmap plugin would have it, and the end of it.

By manifests, so that no flag is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed import Host, Pod, until
from tests.bed.manifests import host_port, pod, service
from tests.bed.manifests import port as service_port
from tests.net.outside import FAMILY, FAST, PROTOCOL, Met, ask
from tests.net.world import ECHO, WEB, World

pytestmark = pytest.mark.parametrize("world", ["two_nodes"], indirect=True)

TARGET = {"TCP": WEB, "UDP": ECHO}
PORT, TIED, LOOPBACK = 18080, 18081, 18082
TIE = {"ipv4": "192.168.77.111", "ipv6": "fd00:77::111"}
"""A further address of n1."""
CLIENTS = ["outside", "node", "pod", "other node's pod", "itself"]


def client(world: World, name: str) -> Host:
    """Who asks."""
    return {
        "outside": world.cluster.client,
        "node": world.node,
        "pod": world.app,
        "other node's pod": world.pods["app-1"],
        "itself": world.near,
    }[name]


def shown_as(world: World, one: Pod, *ports: Any, **fields: Any) -> None:
    """The pod's manifest with these ports; returns once it is applied."""
    node = world.node_of(one)
    world.write(one.name, pod(one.name, node=node, addresses=one.addresses, ports=ports, **fields))


@pytest.fixture
def tied(world: World) -> Iterator[None]:
    """n1 has another address."""
    for address, length in zip(TIE.values(), (24, 64), strict=True):
        world.node.run("ip", "addr", "add", f"{address}/{length}", "dev", "eth0", "nodad")
    yield
    for address, length in zip(TIE.values(), (24, 64), strict=True):
        world.node.run("ip", "addr", "del", f"{address}/{length}", "dev", "eth0")


@pytest.fixture
def web(world: World, tied: None) -> Iterator[Pod]:
    """web-0 of n1 with a port of each protocol: on all addresses, on one, and on loopback."""
    assert tied is None
    both = [
        host_port(number, TARGET[protocol], protocol=protocol, address=address)
        for protocol in TARGET
        for number, address in (
            (PORT, None), (TIED, TIE["ipv4"]), (TIED, TIE["ipv6"]), (LOOPBACK, "127.0.0.1"),
        )
    ]  # fmt: skip
    shown_as(world, world.near, *both)
    yield world.near
    world.remove(world.near.name)


def failing(world: World) -> list[str]:
    """What status says of n1's."""
    return [row["error"] for row in world.agent.status()["failing"]]


@FAMILY
@PROTOCOL
def test_reached_from_everywhere(world: World, web: Pod, protocol: str, family: str) -> None:
    """At the node's address, under that address, and seen with the client's own."""
    to = getattr(world.node, family)
    for name in CLIENTS:
        who = client(world, name)
        met = ask(who, protocol, to, PORT)
        assert met == Met(web.name, getattr(who, family)), name


@FAMILY
@PROTOCOL
def test_host_ip(world: World, web: Pod, protocol: str, family: str) -> None:
    """Only at that address of the node."""
    for name in CLIENTS:
        who = client(world, name)
        assert ask(who, protocol, TIE[family], TIED).server == web.name, name
    met = ask(world.cluster.client, protocol, getattr(world.node, family), TIED, *FAST)
    assert met.server == "ECONNREFUSED"


@PROTOCOL
def test_loopback(world: World, web: Pod, protocol: str) -> None:
    """For the node's own processes; to a pod its loopback is its own, and so it is outside."""
    for port in (PORT, LOOPBACK):
        assert ask(world.node, protocol, "127.0.0.1", port).server == web.name
        for who in (world.app, world.near, world.pods["app-1"]):
            assert ask(who, protocol, "127.0.0.1", port, *FAST).server == "ECONNREFUSED"
    assert ask(world.node, protocol, "127.0.0.1", TIED, *FAST).server == "ECONNREFUSED"
    for who in (world.cluster.client, world.app):
        met = ask(who, protocol, world.node.ipv4, LOOPBACK, *FAST)
        assert met.server == "ECONNREFUSED"


def test_what_others_see(world: World, web: Pod) -> None:
    """`show services` by type, status, and the other node, which serves none of it."""
    rows = json.loads(world.agent.tidegate("show", "services", "-o", "json").stdout)
    own = [row for row in rows if row["name"] == f"pod:{web.name}"]
    fronts = {(one["type"], one["address"]) for row in own for one in row["frontends"]}
    assert ("HostPort", world.node.ipv4) in fronts
    assert ("HostPort", "127.0.0.1") in fronts
    assert {kind for kind, _ in fronts} == {"HostPort"}
    feature = world.agent.status()["features"]["host-ports"]
    assert (feature["state"], feature["pods"], feature["ports"]) == ("on", 1, 8)
    assert world.agents[1].status()["features"]["host-ports"]["pods"] == 0
    assert ask(world.cluster.client, "TCP", world.cluster.nodes[1].ipv4, PORT, *FAST).server == (
        "ECONNREFUSED"
    )
    world.agent.tidegate("verify")


def test_explained(world: World, web: Pod) -> None:
    """For a packet from outside, and for a connect of the node to its own loopback."""
    for source, to in (
        (f"{world.cluster.client.ipv4}:1234", f"{world.node.ipv4}:{PORT}"),
        (f"{world.node.ipv4}:1234", f"127.0.0.1:{LOOPBACK}"),
    ):
        argv = ("explain", "tcp", source, to, "-o", "json")
        found = json.loads(world.agent.tidegate(*argv, timeout=60).stdout)
        assert found["backend"] == f"{web.ipv4}:{WEB}"
        assert found["service"].startswith(f"default/pod:{web.name}")


def test_a_restart_changes_nothing(world: World, web: Pod) -> None:
    """Served while no agent runs; the next one writes nothing."""
    agent = world.agent
    agent.kill()
    assert ask(world.cluster.client, "TCP", world.node.ipv4, PORT).server == web.name
    agent.start()
    assert " 0 writes" in agent.log
    assert ask(world.cluster.client, "TCP", world.node.ipv4, PORT).server == web.name
    agent.tidegate("verify")


@pytest.mark.parametrize(
    "end", [{"phase": "Succeeded"}, {"host_network": True}, None], ids=["ended", "host", "gone"]
)
def test_removed(world: World, end: dict[str, Any] | None) -> None:
    """With the pod's end, its deletion, or where its ports are the node's own sockets."""
    ask_at = (world.cluster.client, "TCP", world.node.ipv4, PORT)
    ports = [host_port(PORT, WEB)]
    shown_as(world, world.near, *ports)
    assert ask(*ask_at).server == world.near.name
    if end is None:
        world.remove(world.near.name)
    else:
        shown_as(world, world.near, *ports, **end)
    assert ask(*ask_at, *FAST).server == "ECONNREFUSED"
    rows = json.loads(world.agent.tidegate("show", "services", "-o", "json").stdout)
    assert not [row for row in rows if row["name"].startswith("pod:")]
    if end is not None:
        world.remove(world.near.name)


def test_a_udp_client_follows_to_the_next_pod(world: World) -> None:
    """The port goes to another pod: a socket of before is ended, so that it asks anew."""
    shown_as(world, world.near, host_port(PORT, ECHO, protocol="UDP"))
    at = (world.app, "UDP", world.node.ipv4, PORT)
    assert ask(*at).server == world.near.name
    world.remove(world.near.name)
    shown_as(world, world.app, host_port(PORT, ECHO, protocol="UDP"))
    with_server = world.app.udp_echo()
    assert ask(*at).server == world.app.name
    assert ask(world.cluster.client, "UDP", world.node.ipv4, PORT).server == world.app.name
    with_server.end()
    world.remove(world.app.name)


def test_a_conflict_is_told_and_ends(world: World) -> None:
    """Who has the port keeps it; one line in status and log; then the other one gets it."""
    node_port = world.node_port()
    ports = [service_port(80, node_port=node_port)]
    one = service("taken", cluster_ips=world.vip(), ports=ports)
    world.write("taken", one, *world.slices("taken", [world.far]))
    shown_as(world, world.near, host_port(node_port, WEB))
    at = (world.cluster.client, "TCP", world.node.ipv4, node_port)
    line = f"node port {node_port}/TCP already leads to default/taken/TCP (IPv4)"
    assert ask(*at).server == world.far.name
    assert line in failing(world)
    assert line in world.agent.log
    world.remove("taken")
    until(lambda: not failing(world), "end of the conflict", timeout=5)
    assert ask(*at).server == world.near.name
    world.remove(world.near.name)
