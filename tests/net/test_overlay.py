"""Pods of other nodes behind a VXLAN tunnel, wired as flannel does it; rp_filter is strict.

Nothing else leads to them: a packet of a pod that goes past the tunnel is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Cluster, Node
from tests.bed.manifests import node
from tests.bed.network import Pair
from tests.net.bulk import to_and_fro
from tests.net.outside import FAMILY, PROTOCOL, SERVICES, Met, Outside, ask
from tests.net.test_outside_changes import LINES, spec_of, talk_to, unbroken
from tests.net.world import World, url

DEVICE = "flannel.1"


def tunnel_address(node: Node) -> Pair:
    """The first address of a node's pods, as flannel takes it."""
    return Pair(f"10.244.{node.number}.0", f"fd00:10:244:{node.number}::")


def tunnelled(here: Node, there: Node) -> None:
    """`here` reaches the pods of `there` by the tunnel only."""
    own, other = tunnel_address(here), tunnel_address(there)
    link = ("id", "1", "dstport", "8472", "local", here.ipv4, "dev", "eth0", "nolearning")
    mac = f"02:42:00:00:00:0{there.number}"
    for command in (
        ("ip", "link", "add", DEVICE, "type", "vxlan", *link),
        ("ip", "link", "set", DEVICE, "address", f"02:42:00:00:00:0{here.number}", "up"),
        ("ip", "addr", "add", f"{own.ipv4}/32", "dev", DEVICE),
        ("ip", "addr", "add", f"{own.ipv6}/128", "dev", DEVICE, "nodad"),
        ("bridge", "fdb", "append", mac, "dev", DEVICE, "dst", there.ipv4),
        *(("ip", "neigh", "replace", one, "lladdr", mac, "dev", DEVICE, "nud", "permanent")
          for one in other),
        *(("ip", "route", "replace", f"{one}/{bits}", "dev", DEVICE)
          for one, bits in zip(other, (32, 128), strict=True)),
        *(("ip", "route", "replace", prefix, "via", via, "dev", DEVICE, "onlink")
          for prefix, via in zip(there.pod_cidr, other, strict=True)),
    ):  # fmt: skip
        here.run(*command)
    for name in ("all", "eth0", DEVICE):
        here.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{name}/rp_filter")


@pytest.fixture(scope="module", params=["native", "generic", "off"])
def overlay(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Two nodes with a tunnel between them, made before the agents start; by each kind of XDP."""
    with Cluster(nodes=2) as cluster:
        for number, one in enumerate(cluster.nodes):
            web = one.pod(f"web-{number}")
            web.nginx()
            web.udp_echo()
            web.line_echo(LINES)
            one.pod(f"app-{number}")
        first, second = cluster.nodes
        tunnelled(first, second)
        tunnelled(second, first)
        for one in cluster.nodes:
            for prefix in one.pod_cidr:
                cluster.router.run("ip", "route", "del", prefix)
        world = World(cluster, tmp_path_factory.mktemp("manifests"))
        cluster.route(SERVICES, world.node)
        world.write("nodes", *(node(one.name, addresses=one.addresses) for one in cluster.nodes))
        world.start("--xdp", request.param)
        yield world
        world.close()


KINDS = ("node_port", "balancer", "cluster")


@FAMILY
@PROTOCOL
def test_a_backend_behind_the_tunnel(overlay: World, family: str, protocol: str) -> None:
    """It is met as from the tunnel's address, to which its node answers by the tunnel."""
    outside = Outside(overlay)
    places = outside.expose(f"far-{family}-{protocol}".lower(), [overlay.far], protocol=protocol)
    wanted = Met(overlay.far.name, getattr(tunnel_address(overlay.node), family))
    for kind in KINDS:
        assert outside.ask(protocol, places[kind], family) == wanted, kind
    shown = overlay.agent.tidegate("show", "flows", "-o", "json").stdout
    assert {flow["mode"] for flow in json.loads(shown)} == {"snat"}


@FAMILY
def test_a_backend_of_this_node_sees_the_client(overlay: World, family: str) -> None:
    """The tunnel changes nothing for it."""
    outside = Outside(overlay)
    places = outside.expose(f"near-{family}", [overlay.near])
    wanted = Met(overlay.near.name, getattr(outside.client, family))
    assert outside.ask("TCP", places["node_port"], family) == wanted


@FAMILY
def test_megabytes(overlay: World, megabytes: Path, family: str) -> None:
    """Through the smaller MTU, both ways, intact."""
    outside = Outside(overlay)
    place = outside.expose(f"large-{family}", [overlay.far])["balancer"]
    to_and_fro(outside.client, url(getattr(place.at, family), place.port), megabytes)


@FAMILY
def test_a_pod_meets_it_as_itself(overlay: World, family: str) -> None:
    """East-west nothing is rewritten but at the socket."""
    places = Outside(overlay).expose(f"east-{family}", [overlay.far])
    met = ask(overlay.app, "TCP", getattr(places["cluster"].at, family), 80)
    assert met == Met(overlay.far.name, getattr(overlay.app, family))


@FAMILY
def test_connections_outlive_the_agent(overlay: World, family: str) -> None:
    """Killed and started again: the same connection, by the same address of the tunnel."""
    outside = Outside(overlay)
    place = outside.expose(f"lasting-{family}", [overlay.far], **spec_of("TCP"))["balancer"]
    talk = talk_to(outside, "TCP", place, family)
    overlay.agent.kill()
    overlay.agent.start()
    assert unbroken(talk) == {overlay.far.name}


@FAMILY
def test_direct_server_return_through_the_tunnel(overlay: World, family: str) -> None:
    """What is handed over comes out of the tunnel first; the answer goes straight.

    The client's packet comes in by another device than leads to the client: not where it is strict.
    """
    loose = f"echo 2 > /proc/sys/net/ipv4/conf/{DEVICE}/rp_filter"
    overlay.cluster.nodes[1].run("sh", "-c", loose)
    outside = Outside(overlay)
    annotations = {"tidegate.io/forwarding": "dsr"}
    place = outside.expose(f"dsr-{family}", [overlay.far], annotations=annotations)["balancer"]
    wanted = Met(overlay.far.name, getattr(outside.client, family))
    assert outside.ask("TCP", place, family) == wanted
