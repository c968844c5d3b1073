"""Where nobody serves: refused at once, or silence, or kept out; and served once somebody does."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.bed import Host, Outcome, Process, Talk, connect, curl, datagrams, until
from tests.bed.manifests import ingress
from tests.net.world import ECHO, ENDED, FAMILIES, World, url

FAMILY = pytest.mark.parametrize("family", FAMILIES)
FAST = ("--timeout", "0.2")
HOW = [(), ("--connect",)]


def drops(world: World, reason: str) -> int:
    """How often n1 counted the reason."""
    rows = json.loads(world.agent.tidegate("show", "drops", "-o", "json").stdout)
    return next(int(row["count"]) for row in rows if row["reason"] == reason)


def pod_of(row: dict[str, Any]) -> str:
    """Who answered, else the errno."""
    return str(row["errno"] or json.loads(row["said"])["pod"])


@pytest.mark.parametrize(
    ("family", "options"), [("ipv4", ()), ("ipv6", ()), ("ipv4", ("--mapped",))]
)
def test_refused(world: World, client: Host, family: str, options: tuple[str, ...]) -> None:
    """Without any endpoint connects, and UDP sends, fail at once with ECONNREFUSED; counted."""
    name = f"nobody-{family}-{len(options)}-{client.name}"
    vip = getattr(world.serve(name, []), family)
    udp = getattr(world.serve(f"{name}-udp", [], protocol="UDP"), family)
    before = drops(world, "no_backend")
    (row,) = connect(client, vip, 80, *options)
    assert row["errno"] == "ECONNREFUSED"
    assert row["seconds"] < 0.5
    for how in HOW:
        (row,) = datagrams(client, (udp, 80), options=[*options, *how])
        assert row["errno"] == "ECONNREFUSED"
    assert drops(world, "no_backend") == before + 3


def test_refused_everywhere(world: World, client: Host) -> None:
    """Without any endpoint node ports and external addresses refuse too, whatever the policy."""
    number, external = world.node_port(), world.vip()
    world.serve(
        f"nowhere-{client.name}", [], node_port=number, kind="NodePort", external_ips=external,
        internal_policy="Local", external_policy="Local",
    )  # fmt: skip
    for own, node_ip in zip(external, world.node.addresses, strict=True):
        assert curl(client, url(own)).outcome is Outcome.REFUSED
        assert curl(client, url(node_ip, number)).outcome is Outcome.REFUSED


@FAMILY
def test_last_endpoint(world: World, family: str) -> None:
    """A service that loses its last endpoint refuses, and serves as soon as it has one again."""
    vip = world.serve(f"last-{family}", [world.near])
    own = getattr(vip, family)
    assert curl(world.app, url(own)).outcome is Outcome.OK
    world.serve(f"last-{family}", [], at=vip)
    assert curl(world.app, url(own)).outcome is Outcome.REFUSED
    world.serve(f"last-{family}", [world.far], at=vip)
    assert curl(world.app, url(own)).json["pod"] == "web-1"


@FAMILY
@pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
def test_silence(world: World, client: Host, family: str) -> None:
    """Under Local with endpoints elsewhere only, TCP times out and datagrams vanish unanswered."""
    name = f"silent-{family}-{client.name}"
    tcp = world.serve(name, [world.far], internal_policy="Local")
    spec: dict[str, Any] = {"target": ECHO, "protocol": "UDP", "internal_policy": "Local"}
    udp = world.serve(f"{name}-udp", [world.far], **spec)
    own, own_udp = getattr(tcp, family), getattr(udp, family)
    before = drops(world, "no_local_backend")
    assert connect(client, own, 80, *FAST)[0]["errno"] == "ETIMEDOUT"
    for how in HOW:
        rows = datagrams(client, (own_udp, 80), (own_udp, 80), options=[*FAST, *how])
        assert [row["errno"] for row in rows] == ["ETIMEDOUT"] * 2
    assert drops(world, "no_local_backend") >= before + 5
    other = world.cluster.nodes[1].pods[1]
    assert pod_of(connect(other, own, 80)[0]) == "web-1"
    assert pod_of(datagrams(other, (own_udp, 80))[0]) == "web-1"
    world.serve(name, world.webs, at=tcp, internal_policy="Local")
    world.serve(f"{name}-udp", world.webs, at=udp, **spec)
    assert pod_of(connect(client, own, 80)[0]) == "web-0"
    for how in HOW:
        assert pod_of(datagrams(client, (own_udp, 80), options=how)[0]) == "web-0"


PATIENT = """
import errno, socket, sys
address = sys.argv[1]
def ask():
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect((address, 80))
    client.send(b"who?")
    return client
client = ask()
print("waiting", flush=True)
try:
    client.recv(4096)
except OSError as error:
    print(errno.errorcode.get(error.errno, error), flush=True)
print(ask().recv(4096).decode(), flush=True)
"""


@FAMILY
@pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
def test_silent_socket_is_told(world: World, client: Host, family: str) -> None:
    """A socket connected to a silent service is ended once that serves, and so connects anew."""
    name = f"patient-{family}-{client.name}"
    spec: dict[str, Any] = {"target": ECHO, "protocol": "UDP", "internal_policy": "Local"}
    vip = world.serve(name, [world.far], **spec)
    waiting: Process = client.spawn(
        sys.executable, "-IS", "-c", PATIENT, getattr(vip, family),
        ready=lambda process: "waiting" in process.output,
    )  # fmt: skip
    world.serve(name, world.webs, at=vip, **spec)
    assert waiting.wait() == 0, waiting.output
    _, ended, answer = waiting.output.splitlines()
    assert ended == "ECONNABORTED"
    assert json.loads(answer)["pod"] == "web-0"


@FAMILY
def test_service_that_comes_back(world: World, client: Host, family: str) -> None:
    """A UDP client of a service without endpoints is answered once there is one, and only then."""
    name = f"back-{family}-{client.name}"
    vip = world.serve(name, [world.near], target=ECHO, protocol="UDP")
    talk = Talk(client, "udp", getattr(vip, family), 80)
    world.serve(name, [], at=vip, target=ECHO, protocol="UDP")
    until(lambda: "ECONNREFUSED" in talk.events, "refusal", timeout=5)
    world.serve(name, [world.far], at=vip, target=ECHO, protocol="UDP")
    until(lambda: talk.events[-1] == "answered", "answer", timeout=5)
    seen = talk.stop()
    assert seen["failures"][0]["errno"] in ENDED
    assert {one["errno"] for one in seen["failures"][1:]} == {"ECONNREFUSED"}
    assert set(seen["servers"]) == {"web-0", "web-1"}


@FAMILY
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_source_ranges(world: World, family: str, protocol: str) -> None:
    """Only sources in the ranges reach the load balancer's address; all else stays open to all."""
    name, number, at = f"ranges-{family}-{protocol.lower()}", world.node_port(), world.vip()
    bits = 32 if family == "ipv4" else 128
    allowed, own = world.app, getattr(at, family)

    def answers(client: Host, address: str, where: int = 80) -> bool:
        if protocol == "TCP":
            (row,) = connect(client, address, where, *FAST)
            assert row["errno"] in {None, "ETIMEDOUT"}
            return row["errno"] is None
        found = {datagrams(client, (address, where), options=[*FAST, *how])[0]["errno"]
                 for how in HOW}  # fmt: skip
        assert found in ({None}, {"ETIMEDOUT"})
        return found == {None}

    def write(source: str) -> None:
        world.serve(
            name, [world.near], at=vip, node_port=number, kind="LoadBalancer", protocol=protocol,
            target=8080 if protocol == "TCP" else ECHO,
            load_balancer=[ingress(ip) for ip in at], source_ranges=[source],
        )  # fmt: skip

    vip = world.vip()
    write(f"{getattr(allowed, family)}/{bits}")
    before = drops(world, "source_range")
    assert answers(allowed, own)
    assert not answers(world.near, own)
    assert not answers(world.node, own)
    assert drops(world, "source_range") > before
    for client in (world.near, world.node, allowed):
        assert answers(client, getattr(vip, family))
        assert answers(client, getattr(world.node, family), number)
    write(f"{getattr(world.node, family)}/{bits}")
    assert answers(world.node, own)
    assert not answers(allowed, own)


def test_range_of_the_other_family(world: World) -> None:
    """Ranges of one family only leave the other open."""
    at = world.vip()
    world.serve(
        "one-family", [world.near], load_balancer=[ingress(ip) for ip in at],
        source_ranges=["192.0.2.0/24"],
    )  # fmt: skip
    assert curl(world.app, url(at.ipv4), timeout=0.3).outcome is Outcome.TIMEOUT
    assert curl(world.app, url(at.ipv6)).outcome is Outcome.OK
