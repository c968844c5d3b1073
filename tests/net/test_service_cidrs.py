"""Addresses that services could have: no port of it refuses, nobody there is silence, not a leak.

Packets to service addresses that nothing answers would else leave the cluster by the default
route. The client outside holds such addresses here, and answers for them whatever gets out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed import Host, connect, datagrams, network, until
from tests.bed.network import Pair
from tests.net.test_empty import drops
from tests.net.world import ECHO, FAMILIES, WEB, World

pytestmark = pytest.mark.parametrize("world", ["one_node"], indirect=True)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
FAST = ("--timeout", "0.2")
HOW = [(), ("--connect",)]
STRAY = Pair("10.97.0.9", "fd00:10:97::9")
"""Addresses that no service has, and the client outside does."""
RANGES = Pair("10.97.0.0/16", "fd00:10:97::/112")


def service_cidr(*cidrs: str) -> dict[str, Any]:
    """A ServiceCIDR as the API server has it."""
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "stray"}, "spec": {"cidrs": list(cidrs)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def leak(world: World) -> Iterator[Pair]:
    """STRAY, led out of the cluster to a client that answers there."""
    cluster = world.cluster
    for address in STRAY:
        cluster.client.run("ip", "address", "add", address, "dev", "lo")
    cluster.claim.enter("wire", network.wire_routes(STRAY, cluster.client.addresses))
    cluster.client.nginx(WEB)
    cluster.client.udp_echo(ECHO)
    yield STRAY
    for address in STRAY:
        cluster.client.run("ip", "address", "del", address, "dev", "lo")


def meets(client: Host, address: str) -> set[str]:
    """What TCP and unconnected UDP meet there: errnos, or "" for an answer."""
    (tcp,) = connect(client, address, WEB, *FAST)
    (udp,) = datagrams(client, (address, ECHO), options=FAST)
    return {str(tcp["errno"] or ""), str(udp["errno"] or "")}


@FAMILY
def test_a_port_that_the_service_has_not(world: World, client: Host, family: str) -> None:
    """Connects and datagrams to another port of a cluster IP fail at once, counted."""
    name = f"ports-{family}-{client.name}"
    tcp = getattr(world.serve(name, world.webs), family)
    udp = getattr(world.serve(f"{name}-udp", world.webs, target=ECHO, protocol="UDP"), family)
    before = drops(world, "no_service_port")
    (row,) = connect(client, tcp, 81)
    assert (row["errno"], row["seconds"] < 0.5) == ("ECONNREFUSED", True)
    for how in HOW:
        assert datagrams(client, (udp, 81), options=how)[0]["errno"] == "ECONNREFUSED"
        # The protocol is part of the port.
        assert datagrams(client, (tcp, 80), options=how)[0]["errno"] == "ECONNREFUSED"
        assert datagrams(client, (udp, 80), options=how)[0]["errno"] is None
    assert connect(client, udp, 80)[0]["errno"] == "ECONNREFUSED"
    assert connect(client, tcp, 80)[0]["errno"] is None
    assert drops(world, "no_service_port") == before + 6


def everyone(world: World, addresses: Pair) -> set[str]:
    """What a pod and the node's own processes meet there, in both families."""
    clients: list[Host] = [world.app, world.node]
    return set().union(*(meets(one, address) for one in clients for address in addresses))


def test_a_refusal_comes_and_goes_with_its_service(world: World, leak: Pair) -> None:
    """A cluster IP refuses other ports while its service is there, and neither before nor after."""
    assert everyone(world, leak) == {""}
    world.serve("comes", world.webs, at=leak)
    assert everyone(world, leak) == {"ECONNREFUSED"}
    world.remove("comes")
    assert everyone(world, leak) == {""}


def test_nobody_there(world: World, leak: Pair) -> None:
    """What asks for an address of a ServiceCIDR that no service has ends on the node, counted."""
    world.write("cidr", service_cidr(*RANGES))
    before = drops(world, "unallocated")
    assert everyone(world, leak) == {"ETIMEDOUT"}
    for address in leak:
        (row,) = datagrams(world.app, (address, ECHO), options=[*FAST, "--connect"])
        assert row["errno"] == "ETIMEDOUT"
    assert drops(world, "unallocated") >= before + 10
    world.write("cidr", service_cidr(RANGES.ipv6))
    assert meets(world.app, leak.ipv4) == {""}
    assert meets(world.app, leak.ipv6) == {"ETIMEDOUT"}
    world.remove("cidr")
    assert everyone(world, leak) == {""}


def test_a_restart_keeps_both(world: World, leak: Pair) -> None:
    """An agent that comes back refuses and drops as before."""
    vip = world.serve("stays", world.webs)
    world.write("cidr", service_cidr(*RANGES))
    world.agent.restart()
    assert everyone(world, vip) == {"ECONNREFUSED"}
    assert everyone(world, leak) == {"ETIMEDOUT"}
    world.remove("stays")
    assert everyone(world, vip) == {"ETIMEDOUT"}
    world.remove("cidr")


def test_the_nodes_own_port_on_a_cluster_ip(world: World) -> None:
    """Who holds a cluster IP on the node itself, and listens there, answers as ever."""
    own = world.vip()
    for address in own:
        world.node.run("ip", "address", "add", address, "dev", "lo")
    world.node.nginx(8088)
    world.serve("held", world.webs, at=own)
    for address in own:
        # The agent hears of the address a moment after it is there.
        until(lambda: connect(world.node, address, 8088)[0]["errno"] is None, "news", timeout=5)  # noqa: B023
        assert connect(world.node, address, 80)[0]["errno"] is None
        world.node.run("ip", "address", "del", address, "dev", "lo")
