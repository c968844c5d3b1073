"""Clients on this node that no socket hook sees, packet by packet on their pods' devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.bed import Cluster, Host, Node, Pod
from tests.bed.network import Pair
from tests.net.outside import FAMILY, KINDS, PROTOCOL, Met, Outside, Place, ask
from tests.net.world import World

SIDES = {"ingress": "pod_in", "egress": "lb_out"}


@pytest.fixture(scope="module")
def world(two_nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Agents whose hooks see the servers' sockets only: app-0, app-1 and the nodes are unseen.

    app-0 serves, too.
    """
    world = World(two_nodes, tmp_path_factory.mktemp("manifests"))
    world.app.nginx()
    world.app.udp_echo()
    try:
        for node in two_nodes.nodes:
            group = str(node.pods[0].cgroup)
            world.agents.append(node.agent(world.manifests.directory, "--cgroup", group))
        yield world
    finally:
        world.close()


def filters(node: Node, device: str) -> dict[str, tuple[str, int]]:
    """Our filters: program and its id, by side."""
    found = {}
    for side in SIDES:
        shown = node.run("tc", "-j", "filter", "show", "dev", device, side).stdout
        for one in json.loads(shown or "[]"):
            name = one.get("options", {}).get("bpf_name", "")
            if name.startswith("tidegate/"):
                name = name.removeprefix("tidegate/").removesuffix("+clsact")
                found[side] = (name, one["options"]["prog"]["id"])
    return found


def feature(world: World) -> dict[str, Any]:
    """What status says of pods' devices."""
    found: dict[str, Any] = world.agent.status()["features"]["pod-devices"]
    return found


def await_devices(world: World, good: Callable[[dict[str, str]], bool]) -> None:
    """Returns once the devices that status names are good, revision by revision."""
    status = world.agent.status()
    while not good(status["features"]["pod-devices"]["devices"]):
        status = world.agent.await_applied(status["revision"])


def flows_of(world: World, client: Host) -> list[dict[str, Any]]:
    """n1's flows from this client."""
    rows = json.loads(world.agent.tidegate("show", "flows", "-o", "json").stdout)
    starts = tuple((f"{client.ipv4}:", f"[{client.ipv6}]:"))
    return [row for row in rows if row["client"].startswith(starts)]


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("where", ["near", "far"])
def test_every_kind_of_address(world: World, where: str, protocol: str, family: str) -> None:
    """The backend is met under the service's address, and sees the pod's own."""
    server = world.near if where == "near" else world.far
    places = Outside(world).expose(f"kinds-{where}-{protocol}-{family}", [server], protocol=protocol)
    for kind in KINDS:
        at = places[kind]
        met = ask(world.app, protocol, getattr(at.at, family), at.port)
        assert met == Met(server.name, getattr(world.app, family)), kind
