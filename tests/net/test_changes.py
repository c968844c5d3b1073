"""Backends and services that change under traffic: nobody is refused, misled or left waiting."""

from __future__ import annotations

import json
import sys

import pytest

from tests.bed import Host, Pod, Talk, connect, curl, until
from tests.net.world import ECHO, ENDED, FAMILIES, World, answers, ask_on

FAMILY = pytest.mark.parametrize("family", FAMILIES)


@FAMILY
def test_replaced_under_connects(world: World, client: Host, family: str) -> None:
    """While backends are replaced 30 times no connect fails, and none reaches one that left."""
    name = f"replaced-{family}-{client.name}"
    vip = world.serve(name, [world.near])
    own = getattr(vip, family)
    asking = ask_on(client, own)
    for turn in range(30):
        pod = (world.far, world.near)[turn % 2]
        world.serve(name, [pod], at=vip)
        if turn % 5 == 0:
            rows = connect(client, own, 80, count=10)
            assert {json.loads(row["said"])["pod"] for row in rows} == {pod.name}
    report = answers(asking)
    assert report["failed"] == []
    assert set(report["seen"]) == {"web-0", "web-1"}


@FAMILY
def test_udp_backend_goes(world: World, client: Host, family: str) -> None:
    """A connected UDP socket whose backend left is ended, connects anew, and meets another."""
    name = f"left-{family}-{client.name}"
    vip = world.serve(name, [world.far], target=ECHO, protocol="UDP")
    talk = Talk(client, "udp", getattr(vip, family), 80)
    world.serve(name, [world.near], at=vip, target=ECHO, protocol="UDP")
    until(lambda: len(talk.events) == 3, "another answer", timeout=5)
    seen = talk.stop()
    (failure,) = seen["failures"]
    assert failure["errno"] in ENDED
    assert failure["gap"] < 1
    assert set(seen["servers"]) == {"web-0", "web-1"}
    assert seen["connects"] == 2
    label = {"ipv4": "IPv4", "ipv6": "IPv6"}[family]
    lines = curl(world.node, "http://127.0.0.1:10249/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line[:1] != "#")
    reconciler = "kubeproxy_conntrack_reconciler"
    assert float(values[f'{reconciler}_deleted_entries_total{{ip_family="{label}"}}']) > 0
    assert float(values[f'{reconciler}_sync_duration_seconds_count{{ip_family="{label}"}}']) > 0


@FAMILY
def test_tcp_connection_stays(world: World, family: str) -> None:
    """An established TCP connection to a backend that left its service goes on."""
    name = f"stays-{family}"
    port = line_port(world.near)
    vip = world.serve(name, [world.near], target=port)
    talk = Talk(world.app, "tcp", getattr(vip, family), 80)
    world.serve(name, [world.far], at=vip)
    world.remove(name)
    seen = talk.stop()
    assert (seen["failures"], seen["connects"]) == ([], 1)


def line_port(pod: Pod) -> int:
    """The port of a line echo server on the pod, started if need be."""
    rows = pod.run("ss", "-Hltn", "sport", "=", ":7000").stdout
    if not rows.strip():
        pod.line_echo()
    return 7000


BOTH = """
import errno, json, signal, socket, sys
through, direct = (sys.argv[1], 80), (sys.argv[2], 5000)
def ask(one):
    one.settimeout(5)
    try:
        one.send(b"who?")
        return json.loads(one.recv(4096))["pod"]
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
def connected(to):
    one = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(to)
    return one
sockets = [connected(through), connected(direct)]
print(json.dumps([ask(one) for one in sockets]), flush=True)
try:
    sockets[0].recv(4096)
except OSError as error:
    print(json.dumps(errno.errorcode.get(error.errno, str(error))), flush=True)
print(json.dumps([ask(connected(through)), ask(sockets[1])]), flush=True)
"""
"""Connects to a service, and directly to its backend; waits until the one is ended; asks both."""


@FAMILY
def test_direct_socket_is_left_alone(world: World, client: Host, family: str) -> None:
    """Of a program's two sockets to one backend only the one that came by the service is ended."""
    name = f"beside-{family}-{client.name}"
    vip = world.serve(name, [world.far], target=ECHO, protocol="UDP")
    program = client.spawn(
        sys.executable, "-IS", "-c", BOTH, getattr(vip, family), getattr(world.far, family),
        ready=lambda process: bool(process.output),
    )  # fmt: skip
    world.serve(name, [world.near], at=vip, target=ECHO, protocol="UDP")
    assert program.wait() == 0, program.output
    first, ended, last = map(json.loads, program.output.splitlines())
    assert first == ["web-1", "web-1"]
    assert ended == "ECONNABORTED"
    assert last == ["web-0", "web-1"]


@FAMILY
def test_services_that_share_a_backend(world: World, family: str) -> None:
    """Of two services with one backend only the sockets of the one that loses it are ended."""
    losing, keeping = f"losing-{family}", f"keeping-{family}"
    lost = world.serve(losing, [world.far], target=ECHO, protocol="UDP")
    kept = world.serve(keeping, [world.far], target=ECHO, protocol="UDP")
    ended = Talk(world.app, "udp", getattr(lost, family), 80)
    going_on = Talk(world.app, "udp", getattr(kept, family), 80)
    world.serve(losing, [world.near], at=lost, target=ECHO, protocol="UDP")
    until(lambda: len(ended.events) == 3, "another answer", timeout=5)
    assert ended.stop()["connects"] == 2
    seen = going_on.stop()
    assert (seen["connects"], seen["failures"]) == (1, [])


@FAMILY
def test_unconnected_socket_follows(world: World, client: Host, family: str) -> None:
    """The next datagram of an unconnected socket goes to a backend that is there."""
    name = f"follows-{family}-{client.name}"
    vip = world.serve(name, [world.far], target=ECHO, protocol="UDP")
    asking = client.spawn(
        sys.executable, "-IS", "-c", UNCONNECTED, getattr(vip, family),
        ready=lambda process: "web-1" in process.output,
    )  # fmt: skip
    world.serve(name, [world.near], at=vip, target=ECHO, protocol="UDP")
    marker = len(asking.output.splitlines())
    until(lambda: len(asking.output.splitlines()) > marker + 5, "answers", timeout=5)
    asking.end()
    assert set(asking.output.splitlines()[marker + 1 :]) == {"web-0"}


UNCONNECTED = """
import json, socket, sys, time
to = (sys.argv[1], 80)
one = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(2)
while True:
    one.sendto(b"who?", to)
    said, sender = one.recvfrom(4096)
    assert sender[:2] == to, sender
    print(json.loads(said)["pod"], flush=True)
    time.sleep(0.01)
"""
"""Asks a service over and over by one unconnected socket; prints who answers."""


@FAMILY
def test_deleted_and_added(world: World, client: Host, family: str) -> None:
    """A service that is deleted is gone for new connects; added anew, it serves as before."""
    name = f"deleted-{family}-{client.name}"
    vip = world.serve(name, [world.near], target=ECHO, protocol="UDP")
    talk = Talk(client, "udp", getattr(vip, family), 80, "--timeout", "0.1")
    for _ in range(3):
        world.remove(name)
        failures = len(talk.events)
        until(lambda: len(talk.events) > failures, "failure", timeout=5)  # noqa: B023
        world.serve(name, [world.near], at=vip, target=ECHO, protocol="UDP")
        until(lambda: talk.events[-1] == "answered", "answer", timeout=5)
    talk.stop()


@FAMILY
def test_service_comes_after_its_client(world: World, client: Host, family: str) -> None:
    """A UDP socket connected before its service was there is ended, so that it connects anew."""
    vip, name = world.vip(), f"late-{family}-{client.name}"
    waiting = client.spawn(
        sys.executable, "-IS", "-c", LATE, getattr(vip, family),
        ready=lambda process: bool(process.output),
    )  # fmt: skip
    world.serve(name, [world.near], at=vip, target=ECHO, protocol="UDP")
    assert waiting.wait() == 0, waiting.output
    _, ended, answer = waiting.output.splitlines()
    assert (ended, json.loads(answer)["pod"]) == ("ECONNABORTED", "web-0")


LATE = """
import errno, socket, sys
to = (sys.argv[1], 80)
def connected():
    one = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(5)
    one.connect(to)
    one.send(b"who?")
    return one
early = connected()
print("waiting", flush=True)
try:
    early.recv(4096)
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)), flush=True)
print(connected().recv(4096).decode())
"""
"""Asks by a connected socket; when that is ended, by another one."""
