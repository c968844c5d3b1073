"""A service's address works as its backends' would: TCP and UDP, both families, every socket."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tests.bed import WHOAMI, Host, Outcome, connect, curl, datagrams, dig
from tests.bed.manifests import endpoint, endpoint_slice, port, service, slice_port
from tests.bed.network import Pair
from tests.net.world import DNS, ECHO, FAMILIES, WEB, World, url


class Kind(NamedTuple):
    """A socket's family of addresses, the probe's options, and what its addresses begin with."""

    family: str
    options: tuple[str, ...] = ()
    prefix: str = ""


FAMILY = pytest.mark.parametrize("family", FAMILIES)
KIND = pytest.mark.parametrize(
    "kind",
    [Kind("ipv4"), Kind("ipv6"), Kind("ipv4", ("--mapped",), "::ffff:")],
    ids=["ipv4", "ipv6", "mapped"],
)
UDP = pytest.mark.parametrize("how", [(), ("--connect",)], ids=["unconnected", "connected"])


def pods_of(rows: list[dict[str, str]]) -> list[str]:
    """Who answered, as the answers say; fails on a row without one."""
    return [json.loads(row["said"])["pod"] for row in rows]


@pytest.fixture(scope="module")
def services(world: World) -> dict[str, Pair]:
    """What most tests ask: a web, an echo and a name service on both servers."""
    return {
        "web": world.serve("web", world.webs),
        "echo": world.serve("echo", world.webs, target=ECHO, protocol="UDP"),
        "dns": world.serve("dns", world.webs, port=53, target=DNS, protocol="UDP"),
    }


@KIND
def test_tcp(services: dict[str, Pair], client: Host, kind: Kind) -> None:
    """A connect reaches a backend, with the client's own address; its peer is the service."""
    vip = getattr(services["web"], kind.family)
    rows = connect(client, vip, 80, *kind.options, count=4)
    assert [row["errno"] for row in rows] == [None] * 4
    assert [row["peer"] for row in rows] == [[kind.prefix + vip, 80]] * 4
    assert set(pods_of(rows)) <= {"web-0", "web-1"}
    for row in rows:
        said = json.loads(row["said"])
        assert said["client"] == row["local"][0].removeprefix("::ffff:")
        assert said["local_port"] == WEB


@UDP
@KIND
def test_udp(services: dict[str, Pair], client: Host, kind: Kind, how: tuple[str, ...]) -> None:
    """Datagrams reach a backend; answers, and a connected socket's peer, show the service."""
    vip = getattr(services["echo"], kind.family)
    rows = datagrams(client, *[(vip, 80)] * 3, options=[*kind.options, *how])
    assert [row["errno"] for row in rows] == [None] * 3
    assert [row["from"] for row in rows] == [[kind.prefix + vip, 80]] * 3
    assert [row["peer"] for row in rows] == [[kind.prefix + vip, 80] if how else None] * 3
    assert set(pods_of(rows)) <= {"web-0", "web-1"}


@FAMILY
def test_curl_and_dig(services: dict[str, Pair], client: Host, family: str) -> None:
    """The programs that people use are served: curl by TCP, dig by UDP."""
    page = curl(client, url(getattr(services["web"], family)))
    assert (page.outcome, page.json["local_port"]) == (Outcome.OK, WEB)
    answer = dig(client, getattr(services["dns"], family), 53, WHOAMI)
    assert answer.outcome is Outcome.OK
    assert answer.text in {"web-0", "web-1"}


@FAMILY
def test_every_backend_serves(world: World, services: dict[str, Pair], family: str) -> None:
    """Every backend gets its connections: of 64 none stays without but once in 2^63."""
    rows = connect(world.app, getattr(services["web"], family), 80, count=64)
    assert set(pods_of(rows)) == {"web-0", "web-1"}


def test_several_ports(world: World) -> None:
    """Each port and protocol of a service leads to its own target; another port, nowhere."""
    vip = world.vip()
    ports = [("http", 80, "TCP", WEB), ("dns", 53, "UDP", DNS), ("dns-tcp", 53, "TCP", DNS)]
    one = service(
        "several", cluster_ips=vip,
        ports=[port(number, name=name, protocol=kind) for name, number, kind, _ in ports],
    )  # fmt: skip
    slices = [
        endpoint_slice(
            "several",
            endpoints=[endpoint(own)],
            ports=[slice_port(target, name=name, protocol=kind) for name, _, kind, target in ports],
            family=family,
        )
        for own, family in zip(world.near.addresses, ("IPv4", "IPv6"), strict=True)
    ]
    world.write("several", one, *slices)
    for own in vip:
        assert curl(world.app, url(own)).json["pod"] == "web-0"
        assert dig(world.app, own, 53, WHOAMI).text == "web-0"
        assert dig(world.app, own, 53, WHOAMI, tcp=True).text == "web-0"
        assert connect(world.app, own, 81, "--timeout", "0.2")[0]["errno"] is not None


@FAMILY
def test_many_services_on_one_socket(world: World, family: str) -> None:
    """One unconnected socket talks to 20 services in turn; each answer shows the right one."""
    vips = [world.vip() for _ in range(20)]
    objects = []
    for number, vip in enumerate(vips):
        name = f"many-{family}-{number}"
        objects.append(service(name, cluster_ips=vip, ports=[port(80, protocol="UDP")]))
        objects += world.slices(name, world.webs, target=ECHO, protocol="UDP")
    world.write(f"many-{family}", *objects)
    targets = [(getattr(vip, family), 80) for vip in (*vips, *vips)]
    rows = datagrams(world.app, *targets)
    assert [row["from"] for row in rows] == [list(target) for target in targets]


@UDP
@FAMILY
def test_direct_after_service(world: World, how: tuple[str, ...], family: str) -> None:
    """A socket that talked to a service talks to its backend's own address under that address."""
    vip = world.serve(f"direct-{family}{len(how)}", [world.near], target=ECHO, protocol="UDP")
    through, direct = (getattr(vip, family), 80), (getattr(world.near, family), ECHO)
    targets = [through, direct, through, direct]
    rows = datagrams(world.app, *targets, options=how)
    assert [row["from"] for row in rows] == [list(target) for target in targets]
    if how:
        assert [row["peer"] for row in rows] == [list(target) for target in targets]


@FAMILY
def test_direct_tcp(world: World, services: dict[str, Pair], client: Host, family: str) -> None:
    """A connect to a backend's own address is no service's business."""
    assert getattr(services["web"], family)
    direct = getattr(world.far, family)
    (row,) = connect(client, direct, WEB)
    assert row["peer"] == [direct, WEB]
    assert pods_of([row]) == ["web-1"]


@FAMILY
def test_hairpin(world: World, family: str) -> None:
    """A pod that is the only backend reaches itself through its service, by TCP and UDP."""
    web = world.serve(f"loop-{family}", [world.near])
    echo = world.serve(f"loop-udp-{family}", [world.near], target=ECHO, protocol="UDP")
    vip, udp = getattr(web, family), getattr(echo, family)
    (row,) = connect(world.near, vip, 80)
    assert row["peer"] == [vip, 80]
    assert pods_of([row]) == ["web-0"]
    for how in ((), ("--connect",)):
        (row,) = datagrams(world.near, (udp, 80), options=how)
        assert row["from"] == [udp, 80]
        assert pods_of([row]) == ["web-0"]


def test_protocols_are_apart(world: World, services: dict[str, Pair]) -> None:
    """UDP to a service of TCP is not translated, nor the reverse."""
    web, echo = (services[name].ipv4 for name in ("web", "echo"))
    (row,) = datagrams(world.app, (web, 80), options=["--connect", "--timeout", "0.2"])
    assert row["said"] is None
    assert connect(world.app, echo, 80, "--timeout", "0.2")[0]["said"] is None


DISCONNECTED = """
import ctypes, json, socket, sys
address, port, direct, target = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.connect((address, port))
    nobody = bytes(28)  # a sockaddr of AF_UNSPEC: connect(2) dissolves the association
    assert ctypes.CDLL(None).connect(client.fileno(), nobody, len(nobody)) == 0
    client.sendto(b"who?", (direct, target))
    print(json.dumps(client.recvfrom(100)[1][0]))
"""


@FAMILY
def test_direct_after_a_dissolved_connect(world: World, family: str) -> None:
    """A socket that was connected to a service, and is no more, sees a backend's own address."""
    vip = world.serve(f"dissolved-{family}", [world.near], target=ECHO, protocol="UDP")
    direct = getattr(world.near, family)
    seen = world.app.python(DISCONNECTED, getattr(vip, family), "80", direct, str(ECHO))
    assert seen == direct
