"""Connections that IPVS translated are taken over by connection tracking.

The kernel here may have no IPVS: its mark on an entry (whom the answers come from, and no
translation of the kernel's own) is made by hand. tests/net/test_takeover_ipvs.py has the real one.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.bed import Cluster, Process, until
from tests.bed.network import Pair
from tests.bed.process import PATIENCE
from tests.net.outside import FAMILY
from tests.net.world import WEB, World

VIP = Pair("10.96.0.77", "fd00:10:96::77")
RULES = """
table ip gone {{
    chain before {{
        type nat hook prerouting priority -100
        ip daddr {vip.ipv4} tcp dport 80 dnat to {end.ipv4}:{port}
    }}
}}
table ip6 gone {{
    chain before {{
        type nat hook prerouting priority -100
        ip6 daddr {vip.ipv6} tcp dport 80 dnat to [{end.ipv6}]:{port}
    }}
}}
table inet stays {{
    chain after {{
        type nat hook postrouting priority 100
        ct state established accept
        {masquerade}
    }}
}}
"""
AS_IPVS_HAS_IT = """
import json, sys
from bpf import conntrack
from bpf.conntrack import nfct_msg
done, state = 0, {"attrs": [("CTA_PROTOINFO_TCP_STATE", 3)]}
for message, original, reply in list(conntrack._entries(status=32, status_mask=32)):
    if original.daddr in sys.argv[1:] and conntrack._state(message) == 3:
        new = nfct_msg.create_from(
            tuple_orig=original, tuple_reply=reply, status=14, timeout=600,
            protoinfo={"attrs": [("CTA_PROTOINFO_TCP", state)]},
        )
        done += conntrack._moved(original, new) == 0
print(json.dumps(done))
"""
"""How many entries are without a translation now."""
ASKS = """
import json, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
try:
    with socket.create_connection((sys.argv[1], 80), timeout=float(sys.argv[2])) as one:
        while True:
            one.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            head, _, body = one.recv(4096).partition(b"\\r\\n\\r\\n")
            print(json.loads(body or one.recv(4096))["pod"], flush=True)
            signal.sigwait([signal.SIGUSR1])
except OSError as problem:
    print(problem)
"""
"""Asks on one connection whenever it is told to; who answers each time."""
THROUGH = """
import json, os, sys
from bpf import conntrack
from bpf.conntrack import Server
from lb import ipvs
ways = [
    (Server(one.saddr, one.sport), Server(one.daddr, one.dport))
    for message, one, _ in conntrack._entries()
    if one.daddr in sys.argv[1:] and conntrack._state(message) == 3
]
through = list(conntrack.through(ways))
"""
HUSH_AND_MOVE = (
    THROUGH
    + """
with ipvs._hushed(through):
    print(json.dumps(conntrack.move(through).count(0)), flush=True)
    os._exit(0)
"""
)
"""How many were moved; their packets are dropped from now on, as by an agent that died."""
SPEAK = "from lb import ipvs; print(len(ipvs.let_speak()))"
MOVE = (
    THROUGH
    + """
print(json.dumps([len(through), conntrack.move(through).count(0)]))
"""
)
"""How many are open, and how many of these were moved."""


@pytest.fixture(scope="module")
def world(one_node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    """No agent at all."""
    return World(one_node, tmp_path_factory.mktemp("manifests"))


@pytest.fixture(params=["plain", "masqueraded"])
def translated(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    """A rule that translates; and masquerades, as kube-proxy has the node do for others."""
    text = RULES.format(
        vip=VIP, end=world.webs[0], port=WEB,
        masquerade="masquerade" if request.param == "masqueraded" else "",
    )  # fmt: skip
    rules = world.node.directory / "rules"
    rules.write_text(text)
    world.node.run("nft", "-f", str(rules))
    yield
    world.node.run("nft", "flush", "ruleset")


def through_ipvs(world: World, address: str, seconds: float) -> Process:
    """A pod asks, and waits so long for an answer; its entry is IPVS's."""
    process = world.app.spawn(
        sys.executable, "-IS", "-c", ASKS, address, str(seconds),
        ready=lambda process: bool(process.output),
    )  # fmt: skip
    assert in_node(world, AS_IPVS_HAS_IT) == 1
    for family in ("ip", "ip6"):
        world.node.run("nft", "delete", "table", family, "gone")
    return process


def in_node(world: World, script: str) -> object:
    """What it says of the services' addresses."""
    return json.loads(world.node.run(sys.executable, "-c", script, *VIP).stdout)


@FAMILY
def test_goes_on(world: World, translated: None, family: str) -> None:
    """With the same backend, each answer after the other."""
    assert translated is None
    process = through_ipvs(world, getattr(VIP, family), 5 * PATIENCE)
    assert in_node(world, MOVE) == [1, 1]
    for count in range(2, 10):
        process.send(signal.SIGUSR1)
        until(lambda: process.output.count("\n") == count, "answer", timeout=5)  # noqa: B023
    assert set(process.output.splitlines()) == {world.webs[0].name}
    assert in_node(world, MOVE) == [0, 0]
    process.end()


@FAMILY
def test_packets_of_the_meantime_are_sent_again(
    world: World, translated: None, family: str
) -> None:
    """None meets half of the change, and none is lost."""
    assert translated is None
    process = through_ipvs(world, getattr(VIP, family), 5 * PATIENCE)
    assert in_node(world, HUSH_AND_MOVE) == 1
    before = sent_again(world)
    process.send(signal.SIGUSR1)
    until(lambda: sent_again(world) > before, "retransmission", timeout=5)
    assert process.output.count("\n") == 1
    assert in_node(world, SPEAK) == 1
    until(lambda: process.output.count("\n") == 2, "answer", timeout=5)
    assert set(process.output.splitlines()) == {world.webs[0].name}
    assert in_node(world, SPEAK) == 0
    process.end()


def sent_again(world: World) -> int:
    """Segments of the client's: RFC 4022, tcpRetransSegs."""
    names, values = (
        line.split()
        for line in world.app.run("cat", "/proc/net/snmp").stdout.splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


def test_else_it_stands_still(world: World, translated: None) -> None:
    """So this is what is needed."""
    assert translated is None
    process = through_ipvs(world, VIP.ipv4, 1)
    process.send(signal.SIGUSR1)
    process.wait()
    assert process.output.endswith("timed out\n")
