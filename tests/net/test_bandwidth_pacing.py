"""Pods send and receive at their limit: real traffic, on a kernel with fq."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bandwidth.queues import OURS, Choice, choose
from bpf import qdisc, tc
from bpf.netns import entered
from bpf.qdisc import has_fq
from tests.bed import Cluster, Manifests, until
from tests.bed.agent import command
from tests.bed.claim import NAMESPACES
from tests.bed.manifests import pod
from tests.net import pace

pytestmark = pytest.mark.skipif(not has_fq(), reason="needs a kernel with fq (sch_fq)")

RATE = 4_000_000
WITHIN = 0.01
MASQUERADE = "".join(
    f"table {one} shape {{ chain out {{ "
    "type nat hook postrouting priority 100; oif eth0 masquerade; }; }; "
    for one in ("ip", "ip6")
)


class World:
    """A node whose pods' limits are kept, and nothing else."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self.node = cluster, cluster.nodes[0]
        self.pods = {pod.name: pod for pod in self.node.pods}
        self.app = self.pods["app-0"]
        self.manifests = Manifests(directory)
        self._bpffs = cluster.claim.bpffs / self.node.name
        where = (str(self._bpffs), str(directory), self.node.name, "all")
        self.keeper = self.node.spawn(
            sys.executable, "-m", "tests.net.limits_alone", *where,
            ready=lambda one: "ready" in one.output, timeout=60,
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """Those of `show limits`."""
        shown = self.node.run(
            *command(), "show", "limits", "--bpffs", str(self._bpffs), "-o", "json"
        )
        found: list[dict[str, Any]] = json.loads(shown.stdout)
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A node with two pods that serve nothing, and a server outside.

    What leaves the node is masqueraded, so that no address names a pod.
    """
    with Cluster(nodes=1) as cluster:
        node = cluster.nodes[0]
        for name in ("app-0", "app-1"):
            node.pod(name)
            # Whoever counts bytes there counts frames.
            node.run("ethtool", "-K", f"v-{name}", "tso", "off", "gso", "off")
        pace.serve(cluster.client)
        node.run("nft", MASQUERADE)
        yield World(cluster, tmp_path_factory.mktemp("manifests"))


def limited(world: World, **annotations: Any) -> None:
    """app-0 has these limits; returns once they are in force."""
    one = world.app
    other = next(other for other in world.node.pods if other is not one)
    world.manifests.write(
        "pods.yaml",
        pod(one.name, node="n1", addresses=one.addresses, **annotations),
        pod(other.name, node="n1", addresses=other.addresses),
    )
    rates = tuple(int(annotations.get(way, 0)) or None for way in ("egress", "ingress"))
    wanted = [(*rates, "enforced")] if annotations else []
    until(lambda: _rows(world) == wanted, "limits in force", timeout=20)


def _rows(world: World) -> list[tuple[int | None, int | None, str]]:
    return [
        (row["egress_bits_per_second"], row["ingress_bits_per_second"], row["state"])
        for row in world.rows()
    ]


@pytest.mark.parametrize(("family", "flows"), [("ipv4", 1), ("ipv4", 32), ("ipv6", 8)])
def test_tcp_leaves_the_node_at_the_rate(world: World, family: str, flows: int) -> None:
    """Within 1 %, masqueraded, counted in frames on the wire."""
    limited(world, egress=str(RATE))
    client = world.cluster.client
    with pace.sending(world.app, client, getattr(client, family), "-P", str(flows)):
        assert pace.closest(client, RATE) == pytest.approx(RATE, rel=WITHIN)


def test_udp_leaves_the_node_at_the_rate(world: World) -> None:
    """Also when three times as much is sent: the rest is dropped, and fq starves nobody."""
    limited(world, egress=str(RATE))
    client = world.cluster.client
    with pace.sending(world.app, client, client.ipv4, "-u", "-b", str(3 * RATE), "-l", "1200"):
        assert pace.closest(client, RATE) == pytest.approx(RATE, rel=WITHIN)
    (row,) = world.rows()
    assert row["egress"]["dropped"] > 0


def test_a_limit_follows_its_annotation(world: World) -> None:
    """Halved under traffic, and then taken away."""
    limited(world, egress=str(RATE))
    client = world.cluster.client
    with pace.sending(world.app, client, client.ipv4, "-P", "4"):
        limited(world, egress=str(RATE // 2))
        assert pace.closest(client, RATE / 2) == pytest.approx(RATE / 2, rel=WITHIN)
        limited(world)
        assert pace.rate(client, 2.0) > 1.5 * RATE


def test_what_a_pod_receives_is_paced(world: World) -> None:
    """Within 1 %; senders are slowed down, by a short queue and no burst."""
    limited(world, ingress=str(RATE))
    client = world.cluster.client
    with pace.sending(world.app, client, client.ipv4, "-R", "-P", "4"):
        assert pace.closest(world.app, RATE) == pytest.approx(RATE, rel=WITHIN)


def test_scope_all_holds_between_pods_of_the_node(world: World) -> None:
    """What goes to another pod here is paced at that pod's device."""
    limited(world, egress=str(RATE))
    other = world.pods["app-1"]
    pace.serve(other)
    with pace.sending(world.app, other, other.ipv4, "-P", "4"):
        assert pace.closest(other, RATE) == pytest.approx(RATE, rel=WITHIN)


def test_queues_go_with_the_last_limit(world: World) -> None:
    """Ours are there while there is a limit, and afterwards what was there before."""
    limited(world, egress=str(RATE), ingress=str(RATE))
    assert [_queue(world, one) for one in ("eth0", "v-app-0")] == ["fq 7d1e:"] * 2
    limited(world)
    for device in ("eth0", "v-app-0"):
        until(lambda one=device: _queue(world, one) == "noqueue 0:", "no queue", timeout=60)


def test_a_device_with_several_queues_gets_fq_on_each(world: World) -> None:
    """Below mq, one for each; afterwards its default is back."""
    node = world.node
    node.run("ip", "link", "add", "several", "numtxqueues", "4", "type", "ifb")
    node.run("ip", "link", "set", "several", "up")
    before = _queue(world, "several")
    with entered(NAMESPACES / node.namespace):
        index = tc.indexes()["several"]
        for step in choose(qdisc.queues()[index]).steps:
            qdisc.put(index, step)
        kinds = sorted(one.kind for one in qdisc.queues()[index])
        assert choose(qdisc.queues()[index]) == Choice()
        assert qdisc.take_off(index, OURS)
        assert not qdisc.take_off(index, OURS)
    assert kinds == ["fq"] * 4 + ["mq"]
    assert _queue(world, "several") == before == "mq 0:"


def _queue(world: World, device: str) -> str:
    shown = json.loads(world.node.run("tc", "-j", "qdisc", "show", "dev", device).stdout)
    root = next(one for one in shown if one.get("root"))
    return f"{root['kind']} {root['handle']}"


def test_a_thin_flow_stays_quick_beside_bulk(world: World) -> None:
    """p99 of small requests of the same pod, beside 32 bulk flows: 4 times below TBF's."""
    client, node = world.cluster.client, world.node
    limited(world, egress=str(RATE))
    with pace.sending(world.app, client, client.ipv4, "-P", "32"):
        ours = pace.latency(world.app, client.ipv4)
    limited(world)
    until(lambda: "noqueue" in node.run("tc", "qdisc", "show", "dev", "eth0").stdout, "no queue",
          timeout=20)  # fmt: skip
    node.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", str(RATE), "burst", "32kb",
             "latency", "50ms")  # fmt: skip
    try:
        with pace.sending(world.app, client, client.ipv4, "-P", "32"):
            theirs = pace.latency(world.app, client.ipv4)
    finally:
        node.run("tc", "qdisc", "del", "dev", "eth0", "root")
    assert ours.p99 * 4 <= theirs.p99
