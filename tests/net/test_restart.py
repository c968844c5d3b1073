"""The agent may go and come: killed, stopped, restarted, resized; traffic notices nothing of it."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bpf import libbpf
from tests.bed import Host, Outcome, Talk, connect, curl, datagrams, until
from tests.bed.manifests import ingress
from tests.bed.network import Pair
from tests.net.world import ECHO, ENDED, FAMILIES, World, answers, ask_on, url

LINES = 7000


@pytest.fixture(scope="module")
def services(world: World) -> dict[str, Pair]:
    """A web, an echo and a line service on both servers, and beside them one of every kind."""
    world.serve("sticky", world.webs, affinity_seconds=1000)
    world.serve("refusing", [])
    balancer = [ingress(ip) for ip in world.vip()]
    world.serve("limited", world.webs, load_balancer=balancer, source_ranges=["10.0.0.0/8"])
    return {
        "web": world.serve("web", world.webs, node_port=world.node_port()),
        "echo": world.serve("echo", world.webs, target=ECHO, protocol="UDP"),
        "lines": world.serve("lines", world.webs, target=LINES),
    }


@pytest.fixture(scope="module", autouse=True)
def _lines(world: World) -> Iterator[None]:
    """Line servers, ended with the module's world."""
    servers = [pod.line_echo(LINES) for pod in world.webs]
    yield
    for server in servers:
        server.end()


@contextmanager
def talking(world: World, services: dict[str, Pair]) -> Iterator[None]:
    """Long TCP and UDP flows of pod and node, in both families, through which nothing may fail."""
    with ExitStack() as stack:
        for client in (world.app, world.node):
            for family in FAMILIES:
                tcp = Talk(client, "tcp", getattr(services["lines"], family), 80)
                udp = Talk(client, "udp", getattr(services["echo"], family), 80)
                stack.callback(unbroken, tcp)
                stack.callback(unbroken, udp)
        yield


def unbroken(talk: Talk) -> None:
    """It went on over its first connection until now."""
    before = talk.stop()
    assert (before["failures"], before["connects"]) == ([], 1)
    assert before["answers"] > 1


def works(client: Host, services: dict[str, Pair]) -> None:
    """New TCP connects and datagrams are served in both families."""
    for family in FAMILIES:
        (row,) = connect(client, getattr(services["web"], family), 80)
        assert row["peer"] == [getattr(services["web"], family), 80]
        (row,) = datagrams(client, (getattr(services["echo"], family), 80))
        assert row["from"] == [getattr(services["echo"], family), 80]


COUNTED = {"connections", "connections_total", "packets", "bytes", "refusals"}


def still(value: Any) -> Any:
    """Without what traffic changes."""
    if isinstance(value, list):
        return [still(one) for one in value]
    if isinstance(value, dict):
        return {name: still(one) for name, one in value.items() if name not in COUNTED}
    return value


def shown(world: World, what: str) -> Any:
    """The rows of `show`, without what traffic changes."""
    return still(json.loads(world.agent.tidegate("show", what, "-o", "json").stdout))


def test_killed_under_traffic(world: World, services: dict[str, Pair]) -> None:
    """Killed, dead and started again: no flow breaks, new ones are served, no id changes."""
    before = shown(world, "backends"), shown(world, "services")
    with talking(world, services):
        world.agent.kill()
        works(world.app, services)
        works(world.node, services)
        assert (shown(world, "backends"), shown(world, "services")) == before
        world.agent.start()
        works(world.app, services)
    assert (shown(world, "backends"), shown(world, "services")) == before


def test_restart_writes_nothing(world: World, services: dict[str, Pair]) -> None:
    """A restart without any change writes nothing into the maps, and verifies."""
    with talking(world, services):
        world.agent.restart()
        count = world.agent.status()["services"]
        assert f"synced: {count} services, 0 writes" in world.agent.log
        assert world.agent.tidegate("verify").returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_changed_while_dead(world: World, services: dict[str, Pair], family: str) -> None:
    """What changed while the agent was dead holds once it is back; stale UDP sockets are ended."""
    name, new = f"moved-{family}", f"new-{family}"
    assert services
    spec: dict[str, Any] = {"target": ECHO, "protocol": "UDP"}
    vip, old, later = (world.vip() for _ in range(3))
    world.serve(name, [world.far], at=vip, **spec)
    world.serve(f"old-{family}", [world.near], at=old)
    talk = Talk(world.app, "udp", getattr(vip, family), 80)
    world.agent.kill()
    world.manifests.write(f"{name}.yaml", *world.objects(name, [world.near], vip, **spec))
    world.manifests.remove(f"old-{family}.yaml")
    world.manifests.write(f"{new}.yaml", *world.objects(new, [world.near], later))
    (row,) = datagrams(world.app, (getattr(vip, family), 80))
    assert json.loads(row["said"])["pod"] == "web-1"
    world.agent.start()
    until(lambda: len(talk.events) == 3, "another answer", timeout=5)
    seen = talk.stop()
    assert set(seen["servers"]) == {"web-0", "web-1"}
    assert {one["errno"] for one in seen["failures"]} <= ENDED
    (row,) = datagrams(world.app, (getattr(vip, family), 80))
    assert json.loads(row["said"])["pod"] == "web-0"
    assert curl(world.app, url(getattr(later, family))).outcome is Outcome.OK
    gone = curl(world.app, url(getattr(old, family)), timeout=0.2)
    assert gone.outcome is Outcome.TIMEOUT


PEER = """
import json, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
tcp = socket.create_connection((sys.argv[1], 80))
udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
udp.connect((sys.argv[2], 80))
free = socket.socket(tcp.family, socket.SOCK_DGRAM)
free.sendto(b"who?", (sys.argv[2], 80))
print("connected", flush=True)
signal.sigwait([signal.SIGTERM])
udp.send(b"who?")
seen = [tcp.getpeername(), udp.getpeername(), udp.recvfrom(4096)[1], free.recvfrom(4096)[1]]
print(json.dumps([one[0] for one in seen]))
"""
"""Connects to a web and an echo service; at SIGTERM prints the four addresses it sees."""


@pytest.mark.parametrize("family", FAMILIES)
def test_peers_outlive_the_agent(world: World, services: dict[str, Pair], family: str) -> None:
    """Sockets from before a kill, a restart and another table size still show the service."""
    web, echo = (getattr(services[name], family) for name in ("web", "echo"))
    clients = [
        client.spawn(
            sys.executable, "-IS", "-c", PEER, web, echo,
            ready=lambda process: "connected" in process.output,
        )
        for client in (world.app, world.node)
    ]  # fmt: skip
    before = shown(world, "services")
    world.agent.kill()
    world.agent.flags = ("--max-backends", "4096", "--max-services", "512", "--max-slots", "8192",
                         "--max-frontends", "1024", "--max-affinity", "256")  # fmt: skip
    with talking(world, services):
        world.agent.start()
        works(world.app, services)
    assert shown(world, "services") == before
    sizes = {row["map"]: row["capacity"] for row in shown(world, "maps")}
    assert (sizes["backends"], sizes["services"], sizes["frontends"]) == (4096, 512, 1024)
    assert world.agent.tidegate("verify").returncode == 0
    world.agent.flags = ()
    world.agent.restart()
    for client in clients:
        client.end()
        assert json.loads(client.output.splitlines()[-1]) == [web, echo, echo, echo]


@pytest.mark.parametrize("family", FAMILIES)
def test_upgraded_to_another_layout(world: World, services: dict[str, Pair], family: str) -> None:
    """Tables that cannot be taken over are filled before the new programs look into them."""
    vip = getattr(services["web"], family)
    with talking(world, services):
        world.agent.kill()
        for name in ("frontends", "services", "backends"):
            (table,) = (world.agent.bpffs / "maps").glob(f"{name}-*")
            table.rename(table.with_name(f"{name}-00000000-16"))
        asking = ask_on(world.app, vip)
        world.agent.start()
        report = answers(asking)
        assert report["failed"] == []
        assert report["seen"]
        works(world.app, services)
        assert not list((world.agent.bpffs / "maps").glob("*-00000000-16"))
        assert world.agent.tidegate("verify").returncode == 0


def test_stopped(world: World, services: dict[str, Pair]) -> None:
    """SIGTERM ends the agent with status 0, and the data path goes on."""
    with talking(world, services):
        assert world.agent.stop() == 0
        works(world.app, services)
    assert "the data path stays" in world.agent.log
    world.agent.start()


class _LoadOptions(ctypes.Structure):
    """The beginning of struct bpf_prog_load_opts (libbpf 1.x)."""

    _fields_ = [
        ("sz", ctypes.c_size_t), ("attempts", ctypes.c_uint32), ("attach_type", ctypes.c_uint32),
    ]  # fmt: skip


CONNECT4 = 10


def forbid(port: int) -> int:
    """A program of somebody else: IPv4 connects to the port fail with EPERM; its descriptor."""
    text = (
        b"\x61\x12\x18\0\0\0\0\0"  # r2 = ctx->user_port
         b"\xb7\0\0\0\0\0\0\0"  # r0 = 0
         b"\x15\x02\x01\0" + socket.htons(port).to_bytes(4, "little")  # if it is the port: end
        + b"\xb7\0\0\0\1\0\0\0"  # r0 = 1
        + b"\x95\0\0\0\0\0\0\0"
    )  # fmt: skip
    options = _LoadOptions(ctypes.sizeof(_LoadOptions), 0, CONNECT4)
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    program: int = library.bpf_prog_load(
        18, b"other", b"GPL", text, len(text) // 8, ctypes.byref(options)
    )
    assert program >= 0, os.strerror(ctypes.get_errno())
    return program


def test_beside_another_program(world: World, services: dict[str, Pair]) -> None:
    """Another program on the same cgroup works before, beside and after ours."""

    def is_there() -> bool:
        (row,) = connect(world.app, world.near.ipv4, 999)
        assert row["errno"] in {"EPERM", "ECONNREFUSED"}
        return bool(row["errno"] == "EPERM")

    assert not is_there()
    program = forbid(999)
    group = os.open(world.node.group, os.O_RDONLY)
    link = libbpf.link_create(program, group, CONNECT4)
    os.close(group)
    os.close(program)
    try:
        assert is_there()
        works(world.app, services)
        world.agent.restart()
        assert is_there()
        world.agent.stop()
        world.agent.tidegate("cleanup")
        assert is_there()
        world.agent.start()
        assert is_there()
        works(world.app, services)
    finally:
        os.close(link)
    assert not is_there()


def test_cleanup(world: World, services: dict[str, Pair]) -> None:
    """`cleanup` refuses while the agent runs; then takes all off, and a second finds nothing."""
    done = world.agent.tidegate("cleanup", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "an agent runs on it" in done.stderr
    works(world.app, services)
    world.agent.stop()
    done = world.agent.tidegate("cleanup")
    assert done.stdout.startswith("removed ")
    assert not world.agent.bpffs.exists() or not list(world.agent.bpffs.iterdir())
    for own in services["web"]:
        assert curl(world.app, url(own), timeout=0.2).outcome is Outcome.TIMEOUT
    for own in services["echo"]:
        for how in ((), ("--connect",)):
            (row,) = datagrams(world.app, (own, 80), options=["--timeout", "0.2", *how])
            assert row["errno"] == "ETIMEDOUT"
    assert world.agent.tidegate("cleanup").stdout == "nothing was there\n"
    world.agent.start()
    works(world.app, services)
