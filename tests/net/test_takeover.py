"""Coming from kube-proxy: its rules go while connections through them, and new ones, go on."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Cluster, Host, Outcome, Process, curl, until
from tests.bed.kubeproxy import NODE_PORT, VIPS, iptables, kubelet_and_cni, nftables, saved
from tests.bed.network import Pair
from tests.bed.process import PATIENCE
from tests.net.world import ECHO, FAMILIES, WEB, World, answers, url

KINDS = ("iptables-nft", "iptables-legacy", "nftables")
SAID = "it is gone now"
VIP = Pair(VIPS["ipv4"], VIPS["ipv6"])
ONE_CONNECTION = """
import json, signal, socket, sys
to, stop, count, error, peers = (sys.argv[1], int(sys.argv[3])), [], 0, "", set()
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
try:
    with socket.create_connection(to, timeout=5) as one:
        while not stop:
            one.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            head, _, body = one.recv(4096).partition(b"\\r\\n\\r\\n")
            peers.add(json.loads(body or one.recv(4096))["pod"])
            count += 1
            print("answered", flush=True)
            signal.sigtimedwait((), 0.05)
except OSError as problem:
    error = str(problem)
print(json.dumps({"count": count, "error": error, "peers": sorted(peers)}))
"""
"""Asks on one connection again and again until SIGTERM; says how often, and whom."""
NEW_CONNECTIONS = """
import json, signal, socket, sys, time
to, stop, seen, failed, slowest = (sys.argv[1], int(sys.argv[3])), [], {}, [], 0
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
while not stop:
    begun = time.monotonic()
    try:
        with socket.create_connection(to, timeout=float(sys.argv[2])) as one:
            one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            said = b"".join(iter(lambda: one.recv(4096), b"")).partition(b"\\r\\n\\r\\n")[2]
            seen[json.loads(said)["pod"]] = seen.get(json.loads(said)["pod"], 0) + 1
            print("answered", flush=True)
    except OSError as error:
        failed.append(str(error))
    slowest = max(slowest, time.monotonic() - begun)
    signal.sigtimedwait((), 0.01)
print(json.dumps({"seen": seen, "failed": failed, "slowest": slowest}))
"""
"""A connection a hundredth of a second until SIGTERM, so that other work goes on beside it."""
ONE_SOCKET = """
import json, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as one:
    one.bind(("", 40404))
    one.settimeout(2)
    one.connect((sys.argv[1], int(sys.argv[2])))
    one.send(b"x")
    print(json.dumps(json.loads(one.recv(4096))["pod"]))
"""
"""One datagram from a port of its own, and who answered it."""


@pytest.fixture(scope="module")
def world(one_node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """No agent yet; the service that kube-proxy serves."""
    world = World(one_node, tmp_path_factory.mktemp("manifests"))
    objects = world.objects("old", world.webs, VIP, target=WEB, node_port=NODE_PORT)
    datagrams = world.objects(
        "old-udp", world.webs, VIP, target=ECHO, protocol="UDP", node_port=NODE_PORT
    )
    world.manifests.write("old.yaml", *objects, *datagrams)
    one_node.route(Pair("10.96.0.0/16", "fd00:10:96::/112"), world.node)
    return world


def restore(world: World, program: str, text: str) -> None:
    """Load rules into the node."""
    path = world.node.directory / "rules"
    path.write_text(text)
    world.node.run("sh", "-c", f"{program} < {path}")


def ip6(program: str) -> str:
    """The same for IPv6."""
    return program.replace("iptables", "ip6tables")


def proxied(world: World, kind: str, *, before: bool = False) -> None:
    """kube-proxy was here, unless it is `before`; kubelet and a CNI are."""
    tables = "iptables-legacy" if kind == "iptables-legacy" else "iptables-nft"
    for family, program in zip(FAMILIES, (tables, ip6(tables)), strict=True):
        restore(world, f"{program}-restore", saved(kubelet_and_cni(family)))
        if before:
            continue
        if kind == "nftables":
            restore(world, "nft -f -", nftables(family))
        else:
            restore(world, f"{program}-restore --noflush", saved(iptables(family)))


def rules(world: World) -> str:
    """All that the node has, without counters."""
    programs = (["nft", "list", "ruleset"], ["iptables-legacy-save"], ["ip6tables-legacy-save"])
    text = [world.node.run(*argv).stdout for argv in programs]
    lines = [line for part in text for line in part.splitlines() if not line.startswith("#")]
    return re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", "\n".join(lines))


def flushed(world: World) -> None:
    """No rules at all."""
    world.node.run("nft", "flush", "ruleset")
    for program in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter", "mangle"):
            for flag in ("-F", "-X"):
                world.node.run(program, "-t", table, flag)


def asking(
    world: World, script: str, address: str, *, client: Host | None = None, port: int = 80
) -> Process:
    """A pod, or somebody else, asks until it is ended."""
    return (client or world.app).spawn(
        sys.executable, "-IS", "-c", script, address, str(5 * PATIENCE), str(port),
        ready=lambda process: "answered" in process.output,
    )  # fmt: skip


def translated(world: World) -> str:
    """UDP flows that the node's connection tracking translates."""
    return "".join(
        world.node.run("conntrack", "-L", "-p", "udp", "--dst-nat", "-f", family).stdout
        for family in FAMILIES
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_connection_meets_a_gap(world: World, kind: str) -> None:
    """Old connections go on, new ones never fail, and only what is kube-proxy's goes."""
    missing = [one for one in (f"{kind}-restore", "nft", "conntrack") if not shutil.which(one)]
    if kind != "nftables" and missing:
        pytest.skip(f"needs {' '.join(missing)}")
    flushed(world)
    proxied(world, kind, before=True)
    only_theirs = rules(world)
    flushed(world)
    proxied(world, kind)
    held = {family: asking(world, ONE_CONNECTION, getattr(VIP, family)) for family in FAMILIES}
    new = {family: asking(world, NEW_CONNECTIONS, getattr(VIP, family)) for family in FAMILIES}
    # As many as make sure that our own choice would be another for some.
    outside = [
        asking(world, ONE_CONNECTION, address, client=world.cluster.client, port=NODE_PORT)
        for address in (world.node.ipv4, world.node.ipv6)
        for _ in range(8)
    ]
    for family in FAMILIES:
        to = getattr(world.node, family)
        world.cluster.client.python(ONE_SOCKET, to, str(NODE_PORT))
    assert translated(world)
    agent = world.node.agent(world.manifests.directory, "--kube-proxy-rules", "remove")
    world.agents.append(agent)
    try:
        until(lambda: SAID in agent.log, "take-over", timeout=30)
        for family in FAMILIES:
            assert curl(world.app, url(getattr(VIP, family))).outcome is Outcome.OK
            to = getattr(world.node, family)
            assert world.cluster.client.python(ONE_SOCKET, to, str(NODE_PORT)) in world.pods
        assert not translated(world)
        for process in (*held.values(), *outside):
            said = answers(process)
            assert not said["error"]
            assert said["count"] > 10
            assert len(said["peers"]) == 1
        for process in new.values():
            said = answers(process)
            assert said["failed"] == []
            assert set(said["seen"]) == {"web-0", "web-1"}
        left = rules(world)
        for name in ("KUBE-SERVICES", "KUBE-SVC", "KUBE-MARK-MASQ", "KUBE-FORWARD", "kube-proxy"):
            assert name not in left
        for name in ("KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "FLANNEL"):
            assert name in left
    finally:
        agent.stop()
        agent.tidegate("cleanup")
        world.agents.clear()
    assert rules(world) == only_theirs
    flushed(world)


@pytest.mark.parametrize("kind", KINDS)
def test_kube_proxy_still_runs(world: World, tmp_path: Path, kind: str) -> None:
    """Its rules stay, and the status says so; they go once it has ended. No connection fails."""
    if kind != "nftables" and not shutil.which(f"{kind}-restore"):
        pytest.skip(f"needs {kind}-restore")
    flushed(world)
    proxied(world, kind)
    program = tmp_path / "kube-proxy"
    shutil.copy(shutil.which("sleep") or "", program)
    kube_proxy = world.node.spawn(str(program), "600")
    before = rules(world)
    new = {family: asking(world, NEW_CONNECTIONS, getattr(VIP, family)) for family in FAMILIES}
    agent = world.node.agent(world.manifests.directory, "--kube-proxy-rules", "remove")

    def taking_over() -> dict[str, str]:
        found: dict[str, str] = agent.status()["features"].get("take-over", {})
        return found

    try:
        until(lambda: taking_over().get("state") == "degraded", "kube-proxy noticed", timeout=15)
        assert f"(process {kube_proxy.pid})" in taking_over()["reason"]
        assert not agent.status()["healthy"]
        assert rules(world) == before
        kube_proxy.end(signal.SIGKILL)
        until(lambda: SAID in agent.log, "take-over", timeout=15)
        until(lambda: taking_over() == {"state": "on"}, "all well", timeout=5)
        assert "KUBE-SERVICES" not in rules(world)
        assert "kube-proxy" not in rules(world)
        for process in new.values():
            said = answers(process)
            assert said["failed"] == []
            assert set(said["seen"]) == {"web-0", "web-1"}
    finally:
        kube_proxy.end(signal.SIGKILL)
        agent.stop()
        agent.tidegate("cleanup")
        flushed(world)


def test_without_being_asked_files_take_nothing(world: World) -> None:
    """A trial on a directory of manifests leaves the rules of a live cluster alone."""
    proxied(world, "nftables")
    before = rules(world)
    agent = world.node.agent(world.manifests.directory)
    try:
        agent.restart()
        assert rules(world) == before
    finally:
        agent.stop()
        agent.tidegate("cleanup")
        flushed(world)
