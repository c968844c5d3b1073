"""Clients on this node that no socket hook sees, packet by packet on their pods' devices."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import WHOAMI, Cluster, Host, Node, Pod, datagrams, dig
from tests.net.bulk import to_and_fro
from tests.net.outside import FAMILY, FAST, KINDS, PROTOCOL, Met, Outside, ask
from tests.net.world import DNS, ECHO, World, url

SIDES = {"ingress": "pod_in", "egress": "lb_out"}


@pytest.fixture(scope="module")
def world(two_nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An agent on n1 whose hooks see web-0's sockets only: those of app-0, and n1's, are unseen.

    app-0 serves, too.
    """
    world = World(two_nodes, tmp_path_factory.mktemp("manifests"))
    world.app.nginx()
    world.app.udp_echo()
    try:
        group = str(world.near.cgroup)
        # What a test takes off is to stay off until it says so.
        flags = ("--cgroup", group, "--repair-interval", "0")
        world.agents.append(world.node.agent(world.manifests.directory, *flags))
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
    starts = (f"{client.ipv4}:", f"[{client.ipv6}]:")
    return [row for row in rows if row["client"].startswith(starts)]


@FAMILY
@PROTOCOL
@pytest.mark.parametrize("where", ["near", "far"])
def test_every_kind_of_address(world: World, where: str, protocol: str, family: str) -> None:
    """The backend is met under the service's address, and sees the pod's own."""
    server = world.near if where == "near" else world.far
    places = Outside(world).expose(
        f"kinds-{where}-{protocol}-{family}", [server], protocol=protocol
    )
    for kind in KINDS:
        at = places[kind]
        met = ask(world.app, protocol, getattr(at.at, family), at.port)
        assert met == Met(server.name, getattr(world.app, family)), kind


@FAMILY
@PROTOCOL
def test_a_pod_that_is_its_own_backend(world: World, protocol: str, family: str) -> None:
    """It is answered by itself, and sees the node as its client, as with kube-proxy."""
    places = Outside(world).expose(f"own-{protocol}-{family}", [world.app], protocol=protocol)
    for kind in KINDS:
        at = places[kind]
        met = ask(world.app, protocol, getattr(at.at, family), at.port)
        assert met == Met(world.app.name, getattr(world.node, family)), kind


@FAMILY
@PROTOCOL
def test_a_seen_socket_is_not_touched_twice(world: World, protocol: str, family: str) -> None:
    """What a hook translated makes no flow on its pod's device."""
    place = Outside(world).expose(f"seen-{protocol}-{family}", [world.far], protocol=protocol)
    at = place["cluster"]
    met = ask(world.near, protocol, getattr(at.at, family), at.port)
    assert met == Met(world.far.name, getattr(world.near, family))
    assert flows_of(world, world.near) == []
    ask(world.app, protocol, getattr(at.at, family), at.port)
    assert f"{at.port}" in {
        row["frontend"].rpartition(":")[2] for row in flows_of(world, world.app)
    }


@FAMILY
def test_megabytes(world: World, family: str, tmp_path: Path) -> None:
    """20 MB arrive whole both ways, at a backend here, one elsewhere, and at itself."""
    sent = tmp_path / "sent"
    sent.write_bytes(random.Random(3).randbytes(20 << 20))
    for server in (world.near, world.far, world.app):
        at = world.serve(f"big-{family}-{server.name}", [server])
        to_and_fro(world.app, url(getattr(at, family)), sent)


@FAMILY
def test_policies_are_those_of_pods(world: World, family: str) -> None:
    """Pods reach all behind an external address, and only near ones of a Local cluster IP."""
    places = Outside(world).expose(f"local-{family}", [world.far], external_policy="Local")
    at = places["balancer"]
    assert ask(world.app, "TCP", getattr(at.at, family), at.port).server == world.far.name
    inside = world.serve(f"internal-{family}", [world.far], internal_policy="Local")
    before = Outside(world).drops("no_local_backend")
    assert ask(world.app, "TCP", getattr(inside, family), 80, *FAST).server == "ETIMEDOUT"
    assert Outside(world).drops("no_local_backend") > before


@FAMILY
def test_backends_come_and_go(world: World, family: str) -> None:
    """Datagrams of a client with one port go to whom is there, and always to the service's."""
    at = world.serve(f"moves-{family}", [world.app], target=ECHO, protocol="UDP")
    for server in (world.near, world.far, world.near):
        world.serve(f"moves-{family}", [server], at=at, target=ECHO, protocol="UDP")
        met = ask(world.app, "UDP", getattr(at, family), 80, "--source-port", "45000")
        assert met.server == server.name


def test_dns(world: World) -> None:
    """A resolver that uses no socket hook gets its answers from the address it asked."""
    at = world.serve("dns", world.webs, target=DNS, port=53, protocol="UDP")
    for address in at:
        assert dig(world.app, address, 53, WHOAMI).text in {pod.name for pod in world.webs}


def test_a_device_that_appears_is_served(world: World) -> None:
    """A pod that is started later is served, and its device forgotten when it goes."""
    at = world.serve("appears", world.webs)
    pod = world.node.pod("late-0")
    await_devices(world, lambda names: "v-late-0" in names)
    assert filters(world.node, "v-late-0").keys() == SIDES.keys()
    for address in at:
        assert ask(pod, "TCP", address, 80).server in {one.name for one in world.webs}
    world.node.run("ip", "link", "del", "v-late-0")
    await_devices(world, lambda names: "v-late-0" not in names)
    assert world.agent.tidegate("verify").returncode == 0


def test_uplinks_are_none_of_them(world: World) -> None:
    """Pods' devices have pod_in, and the device to the outside lb_in."""
    assert filters(world.node, "eth0")["ingress"][0] == "lb_in"
    for pod in world.node.pods:
        if pod.name != "late-0":  # whose device is gone
            found = filters(world.node, f"v-{pod.name}")
            assert {side: name for side, (name, _) in found.items()} == SIDES


@pytest.fixture(scope="module")
def bridged(world: World) -> list[Pod]:
    """Two pods on one bridge of n1, which reach each other past it; the first is a client."""
    pods = [world.node.pod(name) for name in ("bridged-0", "bridged-1")]
    script = "link add cni0 type bridge\nlink set cni0 up\naddr add fe80::1/64 dev cni0 nodad\n"
    for pod in pods:
        script += f"addr del fe80::1/64 dev v-{pod.name}\nlink set v-{pod.name} master cni0\n"
        script += f"route replace {pod.ipv4}/32 dev cni0\nroute replace {pod.ipv6}/128 dev cni0\n"
    world.node.run("sh", "-c", f"printf '%s' '{script}' | ip -batch -")
    for pod, other in zip(pods, reversed(pods), strict=True):
        pod.run("ip", "route", "add", f"{other.ipv4}/32", "dev", "eth0")
        pod.run("ip", "route", "add", f"{other.ipv6}/128", "dev", "eth0")
        pod.nginx()
        pod.udp_echo()
    await_devices(world, lambda names: {f"v-{pod.name}" for pod in pods} <= names.keys())
    return pods


@FAMILY
@PROTOCOL
def test_pods_of_one_bridge(world: World, bridged: list[Pod], protocol: str, family: str) -> None:
    """Backends on the same bridge, whose answers pass its ports alone, beside it, and itself."""
    client, beside = bridged
    for server in (beside, world.near, world.far, client):
        name = f"bridge-{protocol}-{family}-{server.name}"
        at = Outside(world).expose(name, [server], protocol=protocol)["cluster"]
        met = ask(client, protocol, getattr(at.at, family), at.port)
        own = world.node if server is client else client
        assert met == Met(server.name, getattr(own, family)), server.name


def test_crash_and_restart(world: World) -> None:
    """Connections begin while no agent runs; a restart puts back what was lost, and no more."""
    at = world.serve("restart", world.webs)
    before = filters(world.node, "v-app-0")
    world.node.run("tc", "filter", "del", "dev", "v-web-0", "ingress")
    done = world.agent.tidegate("verify", check=False)
    assert (done.returncode, done.stdout) == (1, "pod_in is detached from v-web-0\n")
    assert feature(world)["state"] == "degraded"
    world.agent.kill()
    assert ask(world.app, "TCP", at.ipv4, 80).server in world.pods
    world.agent.start()
    assert filters(world.node, "v-app-0") == before
    assert filters(world.node, "v-web-0")["ingress"] == before["ingress"]
    assert world.agent.tidegate("verify").returncode == 0


def test_flags_change(world: World) -> None:
    """A device changes its part, pods' devices are only those of a pattern, or none, and back."""
    flags = world.agent.flags
    world.agent.flags = (*flags, "--devices", "eth0,v-app-0", "--pod-devices", "v-web-*,v-app-*")
    world.agent.restart()
    assert filters(world.node, "v-app-0")["ingress"][0] == "lb_in"
    assert feature(world)["devices"] == {"v-web-0": "tc"}
    world.agent.flags = (*flags, "--devices", "eth0", "--pod-devices", "off")
    world.agent.restart()
    assert (feature(world)["state"], feature(world)["devices"]) == ("off", {})
    for device in ("v-web-0", "v-app-0"):
        assert "clsact" not in world.node.run("tc", "qdisc", "show", "dev", device).stdout
    world.agent.flags = flags
    world.agent.restart()
    assert filters(world.node, "v-app-0")["ingress"][0] == "pod_in"


@FAMILY
@PROTOCOL
def test_refused_at_once(world: World, protocol: str, family: str) -> None:
    """Without a usable endpoint an unseen client is told so, as one with a hook is."""
    places = Outside(world).expose(f"none-{protocol}-{family}", [], protocol=protocol)
    at = places["cluster"]
    assert ask(world.app, protocol, getattr(at.at, family), at.port).server == "ECONNREFUSED"


@FAMILY
def test_fragments_follow_their_first(world: World, family: str) -> None:
    """A datagram of 4,000 octets passes both ways between an unseen client and a backend."""
    places = Outside(world).expose(f"long-{family}", [world.far], protocol="UDP")
    at = places["cluster"]
    where = (getattr(at.at, family), at.port)
    (row,) = datagrams(world.app, where, options=["--connect", "--size", "4000"])
    assert row["errno"] is None
    assert json.loads(row["said"])["pod"] == world.far.name


def test_cleanup_leaves_nothing(world: World) -> None:
    """Pods' devices are as they were before."""
    world.agent.stop()
    world.agent.tidegate("cleanup")
    assert "clsact" not in world.node.run("tc", "qdisc", "show").stdout
