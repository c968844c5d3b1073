"""Which backends get a service's connections: conditions, policies, hints, names, spread."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.bed import Host, Pod, connect, curl
from tests.bed.manifests import Manifest, endpoint, endpoint_slice, port, service, slice_port
from tests.bed.manifests import node as node_object
from tests.net.world import WEB, World, url

State = Mapping[str, Any]
"""Conditions, or hints, of an endpoint."""

FAST = ("--timeout", "0.2")
TRIES = 16
"""Of two backends each is missed once in 2^15 tries: so many connects show who serves."""


def answering(client: Host, address: str, number: int = 80, tries: int = TRIES) -> set[str]:
    """The pods that answer, and the errnos of connects that fail."""
    rows = connect(client, address, number, *FAST, count=1)
    if rows[0]["errno"] is None:
        rows += connect(client, address, number, *FAST, count=tries * 2)
    return {row["errno"] or str(json.loads(row["said"])["pod"]) for row in rows}


def both(world: World, near: State, far: State, name: str) -> list[Manifest]:
    """Slices with web-0 in the one state and web-1 in the other."""
    return [
        endpoint_slice(
            name,
            endpoints=[
                endpoint(getattr(pod, family.lower()), node=world.node_of(pod), **state)
                for pod, state in ((world.near, near), (world.far, far))
            ],
            ports=[slice_port(WEB)],
            family=family,
        )
        for family in ("IPv4", "IPv6")
    ]


READY: State = {"ready": True}
UNREADY: State = {"ready": False, "serving": False}
DRAINING: State = {"ready": False, "serving": True, "terminating": True}
GONE: State = {"ready": False, "serving": False, "terminating": True}
UNCHECKED: State = {"ready": True, "serving": False}

CONDITIONS: list[tuple[State, State, set[str]]] = [
    # of web-0, of web-1, who answers
    ({}, READY, {"web-0", "web-1"}),
    (UNREADY, READY, {"web-1"}),
    (DRAINING, READY, {"web-1"}),
    (DRAINING, DRAINING, {"web-0", "web-1"}),
    (DRAINING, UNREADY, {"web-0"}),
    (GONE, DRAINING, {"web-1"}),
    (UNCHECKED, DRAINING, {"web-0"}),
    (GONE, UNREADY, {"ECONNREFUSED"}),
    ({"ready": False, "serving": True}, UNREADY, {"ECONNREFUSED"}),
]


def test_conditions(world: World) -> None:
    """Ready endpoints serve, else those that terminate and still serve; changed while it runs."""
    vip = world.vip()
    one = service("conditions", cluster_ips=vip, ports=[port(80)])
    for near, far, expected in CONDITIONS:
        world.write("conditions", one, *both(world, near, far, "conditions"))
        for own in vip:
            assert answering(world.app, own) == expected, (near, far)


POLICIES = [
    # internal and external policy, by where the endpoints are: at the cluster IP, at the node port
    ("Cluster", "Cluster", {"web-0", "web-1"}, {"web-0", "web-1"}),
    ("Local", "Cluster", {"web-0"}, {"web-0", "web-1"}),
    ("Cluster", "Local", {"web-0", "web-1"}, {"web-0", "web-1"}),
    ("Local", "Local", {"web-0"}, {"web-0", "web-1"}),
]


@pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
def test_policies(world: World, client: Host) -> None:
    """Local holds for the cluster IP; pods and the node reach all behind a node port anyway."""
    vip, number = world.vip(), world.node_port()
    name = f"policies-{client.name}"
    for internal, external, cluster_ip, node_port in POLICIES:
        world.serve(
            name, world.webs, at=vip, node_port=number, kind="NodePort",
            internal_policy=internal, external_policy=external,
        )  # fmt: skip
        for own, node_ip in zip(vip, world.node.addresses, strict=True):
            assert answering(client, own) == cluster_ip, (internal, external)
            assert answering(client, node_ip, number) == node_port, (internal, external)


@pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
def test_local_prefers_ready(world: World) -> None:
    """Under Local a local endpoint that terminates serves only while no local one is ready."""
    name = "local-draining"
    vip = world.serve(name, world.webs, internal_policy="Local")
    one = service(name, cluster_ips=vip, ports=[port(80)], internal_policy="Local")
    world.write(name, one, *both(world, DRAINING, READY, name))
    assert answering(world.app, vip.ipv4) == {"web-0"}
    assert answering(world.cluster.nodes[1].pods[1], vip.ipv4) == {"web-1"}


HINTS: list[tuple[State, State, set[str]]] = [
    # hints of web-0, of web-1, who answers to a client on n1 in zone a
    ({"zone_hints": ["a"]}, {"zone_hints": ["b"]}, {"web-0"}),
    ({"zone_hints": ["b", "a"]}, {"zone_hints": ["b"]}, {"web-0"}),
    ({"zone_hints": ["a"]}, {}, {"web-0", "web-1"}),
    ({"zone_hints": ["c"]}, {"zone_hints": ["b"]}, {"web-0", "web-1"}),
    ({"node_hints": ["n9"]}, {"node_hints": ["n1"]}, {"web-1"}),
    (
        {"node_hints": ["n1"], "zone_hints": ["b"]},
        {"node_hints": ["n9"], "zone_hints": ["a"]},
        {"web-0"},
    ),
    ({"node_hints": ["n1"], "zone_hints": ["b"]}, {"zone_hints": ["a"]}, {"web-1"}),
    ({"zone_hints": ["a"]}, {"ready": False, "serving": False}, {"web-0"}),
]


def test_hints(world: World) -> None:
    """Endpoints hinted to this node are used, else those for this zone, if all have such hints."""
    world.write("node-hints", node_object("n1", zone="a"))
    vip = world.vip()
    one = service("hints", cluster_ips=vip, ports=[port(80)])
    for near, far, expected in HINTS:
        world.write("hints", one, *both(world, near, far, "hints"))
        for own in vip:
            assert answering(world.app, own) == expected, (near, far)


def test_zone_changes(world: World) -> None:
    """The node's zone label is followed while the agent runs."""
    vip, name = world.vip(), "zones"
    one = service(name, cluster_ips=vip, ports=[port(80)])
    world.write(name, one, *both(world, {"zone_hints": ["x"]}, {"zone_hints": ["y"]}, name))
    rows = [("x", {"web-0"}), ("y", {"web-1"}), (None, {"web-0", "web-1"}), ("x", {"web-0"})]
    for zone, expected in rows:
        with world.agent.change():
            world.manifests.write("node-hints.yaml", node_object("n1", zone=zone))
        assert world.agent.status()["zone"] == (zone or "")
        assert answering(world.app, vip.ipv4) == expected, zone
        assert answering(world.app, vip.ipv6) == expected, zone


@pytest.fixture(scope="module")
def second_port(world: World) -> int:
    """A port on which both servers have another nginx, that answers with that port."""
    for pod in world.webs:
        if not (pod.directory / "nginx-8081").exists():
            pod.nginx(8081)
    return 8081


def hand_made(
    name: str, pods: Iterable[Pod], number: int, *, port_name: str, part: str, address: str = ""
) -> Manifest:
    """A slice of IPv4 endpoints without a node."""
    return endpoint_slice(
        name,
        name=f"{name}-{part}",
        endpoints=[endpoint(address or pod.ipv4) for pod in pods],
        ports=[slice_port(number, name=port_name)],
    )


def test_port_names(world: World, second_port: int) -> None:
    """A service's slices are joined, each with its own number behind the port's name."""
    vip = world.vip()
    world.write(
        "named",
        service("named", cluster_ips=[vip.ipv4], ports=[port(80, name="http")]),
        hand_made("named", [world.near], WEB, port_name="http", part="a"),
        hand_made("named", [world.far], second_port, port_name="http", part="b"),
        hand_made("named", [world.far], WEB, port_name="other", part="c"),
    )
    rows = connect(world.app, vip.ipv4, 80, count=2 * TRIES)
    said = [json.loads(row["said"]) for row in rows]
    assert {(one["pod"], one["local_port"]) for one in said} == {
        ("web-0", WEB), ("web-1", second_port),
    }  # fmt: skip


def test_padded_addresses(world: World) -> None:
    """Addresses with leading zeros mean what their numbers say, in services and in slices."""
    vip = world.vip()
    padded = ".".join(f"{int(part):03}" for part in world.near.ipv4.split("."))
    external = world.vip().ipv4
    world.write(
        "padded",
        service(
            "padded", cluster_ips=[vip.ipv4], ports=[port(80)],
            external_ips=[".".join(f"{int(part):03}" for part in external.split("."))],
        ),
        hand_made("padded", [world.near], WEB, port_name="", part="a", address=padded),
    )  # fmt: skip
    assert answering(world.app, vip.ipv4) == {"web-0"}
    assert answering(world.app, external) == {"web-0"}


def test_families_are_apart(world: World) -> None:
    """Each family of a service has its own endpoints; a family without any refuses."""
    vip = world.vip()
    one = service("families", cluster_ips=vip, ports=[port(80)])
    four, _ = world.slices("families", [world.near])
    _, six = world.slices("families", [world.far])
    world.write("families", one, four, six)
    assert answering(world.app, vip.ipv4) == {"web-0"}
    assert answering(world.app, vip.ipv6) == {"web-1"}
    world.write("families", one, four)
    assert answering(world.app, vip.ipv4) == {"web-0"}
    assert answering(world.app, vip.ipv6) == {"ECONNREFUSED"}
    single = service("families", cluster_ips=[vip.ipv6], ports=[port(80)])
    world.write("families", single, four, six)
    assert answering(world.app, vip.ipv4) == {"ETIMEDOUT"}
    assert answering(world.app, vip.ipv6) == {"web-1"}


PROXIED_BY = {"service.kubernetes.io/service-proxy-name": ""}


def test_services_left_alone(world: World) -> None:
    """Headless, ExternalName and others' services are not served; a live change acts at once."""
    vip, number = world.vip(), world.node_port()
    ports = [port(80, node_port=number)]
    name = "left-alone"
    plain = service(name, cluster_ips=vip, ports=ports)
    external_name = service(name, cluster_ips=vip, ports=ports, kind="ExternalName")
    foreign = service(name, cluster_ips=vip, ports=ports, labels=PROXIED_BY)
    headless = service(name, cluster_ips=["None"], ports=ports)
    slices = world.slices(name, [world.near])
    for other in (external_name, foreign, headless):
        world.write(name, plain, *slices)
        for own, node_ip in zip(vip, world.node.addresses, strict=True):
            assert answering(world.app, own, tries=1) == {"web-0"}
            assert answering(world.app, node_ip, number, tries=1) == {"web-0"}
        world.write(name, other, *slices)
        for own, node_ip in zip(vip, world.node.addresses, strict=True):
            assert answering(world.app, own) == {"ETIMEDOUT"}
            assert answering(world.app, node_ip, number) == {"ECONNREFUSED"}


def test_headless_slices_are_left_alone(world: World) -> None:
    """A slice with the label of headless services has no endpoints to offer."""
    vip = world.serve("labelled", [world.near])
    assert curl(world.app, url(vip.ipv4)).json["pod"] == "web-0"
    one = service("labelled", cluster_ips=vip, ports=[port(80)])
    slices = world.slices("labelled", [world.near])
    for part in slices:
        part["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    world.write("labelled", one, *slices)
    assert answering(world.app, vip.ipv4) == {"ECONNREFUSED"}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_uniform_spread(world: World, second_port: int, family: str) -> None:
    """Connections are spread evenly over all backends, whatever node they are on."""
    vip, name = world.vip(), f"spread-{family}"
    one = service(name, cluster_ips=vip, ports=[port(80)])
    slices = world.slices(name, world.webs)
    for number, part in enumerate(world.slices(name, world.webs, target=second_port)):
        part["metadata"]["name"] += f"-second-{number}"
        slices.append(part)
    world.write(name, one, *slices)
    rows = connect(world.app, getattr(vip, family), 80, count=400)
    said = [json.loads(row["said"]) for row in rows]
    counts = Counter((one["pod"], one["local_port"]) for one in said)
    assert len(counts) == 4
    # Chi-squared with 3 degrees of freedom: above 40 by chance once in 10^8 runs.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 40
