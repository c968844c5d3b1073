"""A service asks for direct server return where the nodes' flag does not, by an API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Cluster, until
from tests.bed.manifests import node
from tests.net.outside import SERVICES, Met, Outside
from tests.net.test_api_server import Api
from tests.net.world import FAMILIES, World

DSR = {"tidegate.io/forwarding": "dsr"}
PROTOCOLS = ("TCP", "UDP")


@pytest.fixture
def outside(two_nodes: Cluster, tmp_path: Path) -> Iterator[Outside]:
    """Agents on two nodes that follow an API server; packets come to n1."""
    api = Api(two_nodes, tmp_path)
    world = World(two_nodes, api.manifests.directory)
    nodes = [node(one.name, addresses=one.addresses) for one in two_nodes.nodes]
    world.manifests.write("nodes.yaml", *nodes)
    api.start()
    try:
        for one in two_nodes.nodes:
            flags = ("--kubeconfig", str(api.kubeconfig), "--xdp", "off", "--pod-devices", "off")
            world.agents.append(one.agent(None, *flags))
        two_nodes.route(SERVICES, world.node)
        yield Outside(world)
    finally:
        world.close()
        api.kill()


def turned_away(world: World) -> dict[str, int]:
    """What n2 dropped of what was handed over to it."""
    rows = json.loads(world.agents[1].tidegate("show", "drops", "-o", "json").stdout)
    return {row["reason"]: int(row["count"]) for row in rows if row["reason"] in NOT_TAKEN}


NOT_TAKEN = {"not_served", "stranger"}


def test_a_service_that_asks_for_it(outside: Outside) -> None:
    """SNAT until both nodes know each other, then direct; at once again after a restart."""
    world, client = outside.world, outside.client

    def met() -> list[Met]:
        return [
            outside.ask(protocol, places[protocol]["balancer"], family)
            for protocol in PROTOCOLS
            for family in FAMILIES
        ]

    places = {one: outside.expose(one.lower(), [world.far], protocol=one) for one in PROTOCOLS}
    by_snat = [Met("web-1", getattr(world.node, family)) for family in FAMILIES] * 2
    direct = [Met("web-1", getattr(client, family)) for family in FAMILIES] * 2
    assert met() == by_snat
    for one in PROTOCOLS:
        outside.expose(one.lower(), [world.far], protocol=one, places=places[one], annotations=DSR)
    assert met() == by_snat
    until(lambda: met() == direct, "direct answers", timeout=15.0)
    for agent in world.agents:
        agent.restart()
        assert met() == direct
    assert not any(turned_away(world).values())
    for agent in world.agents:
        assert agent.status()["healthy"]
