"""Every address that a service has, and none besides: external, load balancer, node ports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bed import Host, connect, datagrams, until
from tests.bed.manifests import ingress
from tests.net.world import ECHO, FAMILIES, World

FAMILY = pytest.mark.parametrize("family", FAMILIES)
FAST = ("--timeout", "0.2")


def tcp(client: Host, address: str, port: int) -> str:
    """The pod that answered a connect, and `peer` when it shows another peer; else the errno."""
    (row,) = connect(client, address, port, *FAST)
    if row["errno"]:
        return str(row["errno"])
    return str(json.loads(row["said"])["pod"]) if row["peer"] == [address, port] else "peer"


def udp(client: Host, address: str, port: int) -> str:
    """The same with a datagram."""
    (row,) = datagrams(client, (address, port), options=FAST)
    if row["errno"]:
        return str(row["errno"])
    return str(json.loads(row["said"])["pod"]) if row["from"] == [address, port] else "peer"


@FAMILY
def test_external_ip(world: World, client: Host, family: str) -> None:
    """An external IP leads to the backends, by TCP and UDP, beside the cluster IP."""
    at, name = world.vip(), f"external-{family}-{client.name}"
    ips = world.serve(name, [world.far], external_ips=at)
    assert tcp(client, getattr(at, family), 80) == "web-1"
    assert tcp(client, getattr(ips, family), 80) == "web-1"
    world.serve(f"{name}-udp", [world.far], target=ECHO, protocol="UDP", external_ips=at)
    assert udp(client, getattr(at, family), 80) == "web-1"
    world.remove(name)
    assert tcp(client, getattr(at, family), 80) == "ETIMEDOUT"
    world.remove(f"{name}-udp")
    assert udp(client, getattr(at, family), 80) == "ETIMEDOUT"


@FAMILY
def test_load_balancer(world: World, client: Host, family: str) -> None:
    """A load balancer's address leads to the backends in mode VIP, which is also the default."""
    vip, default, name = world.vip(), world.vip(), f"balancer-{family}-{client.name}"
    balancer = [*[ingress(ip, "VIP") for ip in vip], *[ingress(ip) for ip in default]]
    spec: dict[str, Any] = {"kind": "LoadBalancer", "load_balancer": balancer}
    world.serve(name, [world.near], **spec)
    world.serve(f"{name}-udp", [world.near], target=ECHO, protocol="UDP", **spec)
    for at in (vip, default):
        assert tcp(client, getattr(at, family), 80) == "web-0"
        assert udp(client, getattr(at, family), 80) == "web-0"


@FAMILY
def test_load_balancer_proxy(world: World, client: Host, family: str) -> None:
    """In mode Proxy, and by host name, traffic is left to the load balancer, address by address."""
    proxy, vip, name = world.vip(), world.vip(), f"proxy-{family}-{client.name}"
    balancer = [{"hostname": "lb.test"}, *[ingress(ip, "Proxy") for ip in proxy]]
    ips = world.serve(
        name, [world.near], kind="LoadBalancer", load_balancer=[*balancer, *map(ingress, vip)]
    )
    assert tcp(client, getattr(proxy, family), 80) == "ETIMEDOUT"
    assert tcp(client, getattr(vip, family), 80) == "web-0"
    world.serve(name, [world.near], at=ips, kind="LoadBalancer", load_balancer=balancer)
    assert tcp(client, getattr(vip, family), 80) == "ETIMEDOUT"
    assert tcp(client, getattr(ips, family), 80) == "web-0"


@FAMILY
def test_node_port(world: World, client: Host, family: str) -> None:
    """A node port works on its node's address, for pods and for the node, by TCP and UDP."""
    number, name = world.node_port(), f"port-{family}-{client.name}"
    world.serve(name, [world.far], node_port=number, kind="NodePort")
    world.serve(
        f"{name}-udp", [world.far], target=ECHO, protocol="UDP", node_port=number, kind="NodePort"
    )
    own = getattr(world.node, family)
    assert tcp(client, own, number) == "web-1"
    assert udp(client, own, number) == "web-1"
    world.remove(name)
    assert tcp(client, own, number) == "ECONNREFUSED"
    assert udp(client, own, number) == "web-1"


def test_node_port_on_loopback(world: World) -> None:
    """127.0.0.1 accepts node ports from the node's own processes only, and ::1 never."""
    number = world.node_port()
    world.serve("loopback", [world.far], node_port=number, kind="NodePort")
    assert tcp(world.node, "127.0.0.1", number) == "web-1"
    assert tcp(world.node, "127.0.0.7", number) == "web-1"
    assert tcp(world.app, "127.0.0.1", number) == "ECONNREFUSED"
    assert tcp(world.node, "::1", number) == "ECONNREFUSED"
    assert tcp(world.app, "::1", number) == "ECONNREFUSED"


@FAMILY
def test_node_port_elsewhere(world: World, client: Host, family: str) -> None:
    """A node port on another address is none of this node's business: the node there answers."""
    number = world.node_port()
    world.serve(f"elsewhere-{family}-{client.name}", [world.near], node_port=number)
    assert tcp(client, getattr(world.far, family), number) == "ECONNREFUSED"
    for other in world.cluster.nodes[1:]:
        assert tcp(client, getattr(other, family), number) == "web-0"


@pytest.mark.parametrize(("address", "length"), [("192.168.77.99", 32), ("fd00:77::99", 128)])
def test_new_address(world: World, address: str, length: int) -> None:
    """An address that the node gets while it runs accepts node ports, until it is gone."""
    number = world.node_port()
    world.serve(f"added-{length}", [world.near], node_port=number)
    assert tcp(world.app, address, number) != "web-0"
    world.node.run("ip", "addr", "add", f"{address}/{length}", "dev", "eth0", "nodad")
    until(lambda: tcp(world.app, address, number) == "web-0", "node port", timeout=5)
    assert tcp(world.node, address, number) == "web-0"
    world.node.run("ip", "addr", "del", f"{address}/{length}", "dev", "eth0")
    until(lambda: tcp(world.app, address, number) != "web-0", "end of it", timeout=5)


def test_two_claim_one_address(world: World) -> None:
    """Of two services that claim an address the first keeps it; the other follows when it goes."""
    at = world.vip()
    world.serve("holder", [world.near], external_ips=at)
    world.serve("claimant", [world.far], external_ips=at)
    for own in at:
        assert tcp(world.app, own, 80) == "web-0"
    world.agent.restart()
    for own in at:
        assert tcp(world.app, own, 80) == "web-0"
    failing = world.agent.status()["failing"]
    assert {row["name"] for row in failing} == {"claimant"}
    assert all("default/holder" in row["error"] for row in failing)
    world.remove("holder")
    for own in at:
        assert tcp(world.app, own, 80) == "web-1"
    assert world.agent.status()["failing"] == []


RULES = [
    # flags, addresses of n1 that accept, and that do not ; "ipv4" is its primary
    (("--nodeport-addresses", "192.168.77.0/24,fd00:77::/64"), ["ipv4", "ipv6"], ["127.0.0.1"]),
    (("--nodeport-addresses", "192.168.0.0/24,fd00::/64"), [], ["ipv4", "ipv6", "127.0.0.1"]),
    (("--nodeport-addresses", "127.0.0.0/8"), ["127.0.0.1", "ipv6"], ["ipv4"]),
    (("--nodeport-addresses", "primary"), ["ipv4", "ipv6"], ["127.0.0.1", "192.168.77.98"]),
    (("--proxy-mode", "nftables"), ["ipv4", "ipv6"], ["127.0.0.1", "192.168.77.98"]),
    (("--proxy-mode", "ipvs"), ["ipv4", "192.168.77.98"], ["127.0.0.1"]),
    (("--iptables-localhost-nodeports", "false"), ["ipv4", "192.168.77.98"], ["127.0.0.1"]),
]


@pytest.mark.parametrize(
    ("world", "accept", "leave"),
    [pytest.param(("one_node", *f), yes, no, id=" ".join(f)) for f, yes, no in RULES],
    indirect=["world"],
)
def test_node_port_addresses(world: World, accept: list[str], leave: list[str]) -> None:
    """Node ports are accepted where the flags say so; elsewhere the node itself answers."""
    number, node = world.node_port(), world.node
    node.run("ip", "addr", "replace", "192.168.77.98/32", "dev", "lo")
    world.serve("ruled", [world.near], node_port=number)
    own = {"ipv4": node.ipv4, "ipv6": node.ipv6}
    for name in accept:  # the agent may not have seen the new address yet
        until(lambda: tcp(node, own.get(name, name), number) == "web-0", name, timeout=5)  # noqa: B023
    for name in leave:
        assert tcp(node, own.get(name, name), number) == "ECONNREFUSED"
