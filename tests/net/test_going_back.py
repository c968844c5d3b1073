"""After `cleanup` the node is as it was: kube-proxy starts as on a fresh one."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import libbpf
from bpf.link import GUARD, SOCKET_HOOKS
from tests.bed import Cluster, Outcome, curl
from tests.net.world import World, url

PORTS = "/proc/sys/net/ipv4/ip_local_reserved_ports"
SHOW = """
for device in $(ls /proc/sys/net/ipv4/conf); do
    ip -d link show dev $device 2>/dev/null
    for side in ingress egress; do tc filter show dev $device $side 2>/dev/null; done
done
tc qdisc show
ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; ip addr
nft list ruleset; iptables-legacy-save; ip6tables-legacy-save
grep -rs . /proc/sys/net
"""
"""All of a network namespace that anybody could have altered."""
_MOVING = re.compile(
    r"nf_conntrack_count|expires \d+sec|_lft \d+|hoplimit \d+ pref|^#|\[\d+:\d+\]|random"
)


@pytest.fixture
def world(one_node: Cluster, tmp_path: Path) -> Iterator[World]:
    """No agent yet."""
    world = World(one_node, tmp_path)
    yield world
    for agent in world.agents:
        agent.stop()


def state(world: World) -> list[str]:
    """What the node's namespace holds, without what moves by itself."""
    shown = world.node.run("sh", "-c", SHOW, check=False, timeout=30).stdout
    return sorted(line for line in shown.splitlines() if not _MOVING.search(line))


def attached(group: Path) -> int:
    """Programs of our kinds on a cgroup (BPF_PROG_QUERY)."""
    folder = os.open(group, os.O_RDONLY)
    count = ctypes.c_uint32(0)
    try:
        found = 0
        for hook in (*SOCKET_HOOKS, GUARD):
            libbpf._call(
                "bpf_prog_query", folder, hook.attach_type, 0, None, None, ctypes.byref(count),
                what="query",
            )  # fmt: skip
            found += count.value
    finally:
        os.close(folder)
    return found


def test_cleanup_leaves_nothing(world: World) -> None:
    """Qdiscs, filters, links, routes, rules, settings, pins and programs are what they were.

    Others have ports of our range reserved, a filter on the device, and a qdisc of their own.
    """
    node, agent_files = world.node, world.cluster.claim.bpffs / world.node.name
    node.run("sh", "-c", f"echo 8080,50000,60000-60100 > {PORTS}")
    node.run("ip", "link", "add", "own0", "type", "veth", "peer", "name", "own1")
    node.run("tc", "qdisc", "add", "dev", "own0", "clsact")
    node.run(
        "tc", "filter", "add", "dev", "own0", "ingress", "prio", "500", "bpf", "da", "bytecode",
        "1,6 0 0 0",
    )  # fmt: skip
    before = state(world)
    assert attached(node.group) == 0
    world.start("--devices", "eth0,own0", "--kube-proxy-rules", "remove")
    world.serve(
        "web", world.webs, node_port=30080, kind="LoadBalancer",
        load_balancer=[{"ip": "203.0.113.9"}], source_ranges=["192.0.2.0/24"],
    )  # fmt: skip
    assert curl(world.cluster.client, url(node.ipv4, 30080)).outcome is Outcome.OK
    assert attached(node.group) == len(SOCKET_HOOKS) + 1
    assert state(world) != before
    world.agent.stop()
    world.agent.tidegate("cleanup")
    assert state(world) == before
    assert attached(node.group) == 0
    assert not agent_files.exists() or list(agent_files.rglob("*")) == []
    assert list(agent_files.parent.rglob("tidegate*")) == []
    node.run("ip", "link", "del", "own0")
    node.run("sh", "-c", f"echo > {PORTS}")


def test_pins_that_somebody_removed(world: World) -> None:
    """`cleanup` still takes all off the devices; never while an agent serves them.

    Ports stay reserved: who else had reserved some was remembered beside the pins.
    """
    node, before = world.node, state(world)
    world.start("--kube-proxy-rules", "keep")
    world.serve("web", world.webs, node_port=30080)
    agent = world.agent
    pins, agent.bpffs = agent.bpffs, agent.bpffs.parent / "elsewhere"
    done = agent.tidegate("cleanup", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "an agent serves this network namespace" in done.stderr
    assert curl(world.cluster.client, url(node.ipv4, 30080)).outcome is Outcome.OK
    agent.stop()
    shutil.rmtree(pins)
    assert "tidegate" in node.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout
    agent.bpffs = pins
    done = agent.tidegate("cleanup")
    assert done.stdout.startswith("removed ")
    assert done.stderr == f"ports 49152-65535 stay reserved ({PORTS})\n"
    node.run("sh", "-c", f"echo > {PORTS}")
    assert state(world) == before
    assert attached(node.group) == 0
    assert agent.tidegate("cleanup").stdout == "nothing was there\n"
    pins.mkdir()
