"""detectLocalMode by devices: who comes in by them is a pod, and everybody else is outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed import Cluster, Host, Pod, until
from tests.net.outside import FAMILY, FAST, PROTOCOL, SERVICES, Met, Outside, ask
from tests.net.world import World

BRIDGE, PREFIX = "BridgeInterface", "InterfaceNamePrefix"


@pytest.fixture(scope="module")
def unseen(two_nodes: Cluster) -> Iterator[World]:
    """A world in which n1's agent sees no socket but web-0's. Beside app-0 there is other-0."""
    world = World(two_nodes, two_nodes.claim.directory / "detect")
    for pod in (world.app, world.node.pod("other-0")):
        pod.line_echo()  # by its processes explain tells that its sockets are not seen
    two_nodes.route(SERVICES, world.node)
    yield world
    world.close()


def start(world: World, mode: str, device: str) -> None:
    """n1's agent goes by this device."""
    flag = {BRIDGE: "--pod-bridge-interface", PREFIX: "--pod-interface-name-prefix"}[mode]
    flags = ("--cgroup", str(world.near.cgroup), "--detect-local-mode", mode, flag, device)
    if world.agents:
        world.agent.flags = flags
        world.agent.restart()
    else:
        world.agents.append(world.node.agent(world.manifests.directory, *flags))


@pytest.fixture(scope="module")
def by_prefix(unseen: World) -> World:
    """app-0's device has the prefix, other-0's has not."""
    start(unseen, PREFIX, "v-app")
    return unseen


def meets(world: World, who: Host, family: str, protocol: str, policy: str) -> dict[str, Met]:
    """Whom a client meets at each kind of address of a service whose one backend is on n2."""
    name = f"{who.name}-{family}-{protocol}-{policy}".lower()
    places = Outside(world).expose(name, [world.far], protocol=protocol, external_policy=policy)
    return {
        kind: ask(who, protocol, getattr(place.at, family), place.port, *FAST)
        for kind, place in places.items()
    }


SILENCE = ("TimeoutError", "timeout", "ETIMEDOUT", "EAGAIN")
EXTERNAL = ("node_port", "balancer", "external")


@FAMILY
@PROTOCOL
def test_a_device_with_the_prefix_is_a_pods(by_prefix: World, family: str, protocol: str) -> None:
    """It passes by an external policy Local, with its own address, as pods do."""
    world = by_prefix
    met = meets(world, world.app, family, protocol, "Local")
    assert met == dict.fromkeys(met, Met(world.far.name, getattr(world.app, family)))


@FAMILY
@PROTOCOL
def test_any_other_is_outside(by_prefix: World, family: str, protocol: str) -> None:
    """Under Local it meets nobody of another node at external addresses; elsewhere it is served."""
    world = by_prefix
    other = world.node.pods[-1]
    assert other.name == "other-0"
    met = meets(world, other, family, protocol, "Local")
    for kind in EXTERNAL:
        assert met[kind].server in SILENCE, met
    assert met["cluster"].server == world.far.name
    met = meets(world, other, family, protocol, "Cluster")
    assert {one.server for one in met.values()} == {world.far.name}


def test_the_client_outside_stays_outside(by_prefix: World) -> None:
    """No address makes it a pod."""
    met = meets(by_prefix, by_prefix.cluster.client, "ipv4", "TCP", "Local")
    assert all(met[kind].server in SILENCE for kind in EXTERNAL), met
    assert met["cluster"].server == by_prefix.far.name


def test_repairs_and_verify_know_both_builds(by_prefix: World) -> None:
    """What is taken off either device is missed."""
    agent = by_prefix.agent
    agent.tidegate("verify")
    for device in ("v-app-0", "v-other-0"):
        by_prefix.node.run("tc", "filter", "del", "dev", device, "ingress")
    said = agent.tidegate("verify", check=False).stdout
    for device in ("v-app-0", "v-other-0"):
        assert f"pod_in is detached from {device}" in said
    agent.restart()
    agent.tidegate("verify")


@FAMILY
@PROTOCOL
def test_an_uplink_with_the_prefix(unseen: World, family: str, protocol: str) -> None:
    """Who comes in by it is a pod, of another node perhaps: the policy Local is passed by."""
    start(unseen, PREFIX, "eth")
    client = unseen.cluster.client
    met = meets(unseen, client, family, protocol, "Local")
    assert met == dict.fromkeys(met, Met(unseen.far.name, getattr(unseen.node, family)))
    assert "eth0" not in unseen.agent.status()["features"]["xdp"]["devices"]


def bridged(world: World, pod: Pod) -> None:
    """The node's end of the pod's cable becomes a port of cni0, which takes its addresses."""
    device = f"v-{pod.name}"
    world.node.run("ip", "link", "add", "cni0", "type", "bridge", "mcast_snooping", "0")
    world.node.run("ip", "link", "set", "cni0", "up")
    world.node.run("ip", "link", "set", device, "master", "cni0")
    world.node.run("ip", "addr", "add", "fe80::1/64", "dev", "cni0", "nodad")
    routes = ((pod.ipv4, 32, world.node.ipv4), (pod.ipv6, 128, world.node.ipv6))
    for address, length, own in routes:
        world.node.run("ip", "route", "replace", f"{address}/{length}", "dev", "cni0", "src", own)


@pytest.mark.parametrize(("mode", "device"), [(BRIDGE, "cni0"), (PREFIX, "cni")])
def test_a_bridge_stands_for_its_ports(unseen: World, mode: str, device: str) -> None:
    """As kube-proxy sees packets come in by the bridge; a port that joins later counts at once."""
    other = unseen.node.pods[-1]
    start(unseen, mode, device)
    at = Outside(unseen).expose(f"bridge-{mode}".lower(), [unseen.far], external_policy="Local")
    place = at["balancer"]
    assert ask(other, "TCP", place.at.ipv4, place.port, *FAST).server in SILENCE
    bridged(unseen, other)
    try:
        for family in ("ipv4", "ipv6"):
            to = getattr(place.at, family)
            wanted = Met(unseen.far.name, getattr(other, family))
            until(lambda: ask(other, "TCP", to, place.port) == wanted, family, timeout=10)  # noqa: B023
        met = ask(unseen.app, "TCP", place.at.ipv4, place.port, *FAST)
        assert met.server in SILENCE
    finally:
        unseen.node.run("ip", "link", "del", "cni0")
