"""Pods send and receive at their limit: real traffic, a real agent, on a kernel with fq.

Made for an emulated machine (tests/vm), where each command takes seconds: one agent for all, and
the tables are read without a process where that is not what is tested.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pytest

from bandwidth.book import Tables
from bandwidth.queues import OURS, Choice, choose
from bpf import qdisc, tc
from bpf.netns import entered
from bpf.pins import Pins
from bpf.qdisc import has_fq
from lb.limits import show
from tests.bed import Pod, until
from tests.bed.claim import NAMESPACES
from tests.bed.manifests import pod
from tests.bed.network import Pair
from tests.net import pace
from tests.net.world import World

pytestmark = [
    pytest.mark.skipif(not has_fq(), reason="needs a kernel with fq (sch_fq)"),
    pytest.mark.parametrize("world", ["two_nodes"], indirect=True),
]

MEGABIT = 1_000_000
log = logging.getLogger("tidegate.test")

RATE = 4 * MEGABIT
WITHIN = 0.01
WARM_UP = 3.0
"""Seconds after which queues have filled."""
PAUSE = 0.1
"""Seconds between requests: together they are less than the share of one of 33 flows."""
TBF = ("tbf", "rate", str(MEGABIT), "burst", "32kb", "latency", "50ms")
"""A queue of 50 ms, as long as ours."""
MASQUERADE = "".join(
    f"table {one} shape {{ chain out {{ "
    "type nat hook postrouting priority 100; oif eth0 masquerade; }; }; "
    for one in ("ip", "ip6")
)


class Limited:
    """The node n1, of whose pods app-0 is the one that gets limits."""

    def __init__(self, world: World) -> None:
        self.node, self.client = world.node, world.cluster.client
        self.app, self.other = world.app, world.near
        self.manifests, self.agent = world.manifests, world.agent
        self.agent.flags += ("--bandwidth", "on", "--bandwidth-scope", "all")
        self.agent.restart()

    @cached_property
    def tables(self) -> Tables:
        """Those that the agent has pinned, opened once."""
        return show.tables(Pins(self.agent.bpffs))

    def rows(self) -> list[dict[str, Any]]:
        """Those of `show limits`."""
        return show.limits(self.tables)

    def limit(self, **asked: int) -> None:
        """app-0 has these limits, in bits per second; returns once they are in force."""
        texts = {way: str(rate) for way, rate in asked.items()}
        self.manifests.write("pods.yaml", _of(self.app, **texts), _of(self.other))
        wanted = [(asked.get("egress"), asked.get("ingress"), "enforced")] if asked else []
        until(lambda: self.limits() == wanted, "limits in force", timeout=20)

    def limits(self) -> list[tuple[int | None, int | None, str]]:
        """Egress, ingress and state of each row."""
        return [
            (row["egress_bits_per_second"], row["ingress_bits_per_second"], row["state"])
            for row in self.rows()
        ]

    def queue(self, device: str) -> str:
        """The kind of the queue at a device's root, and its handle."""
        with entered(NAMESPACES / self.node.namespace):
            queues = qdisc.queues()[tc.indexes()[device]]
        root = next(one for one in queues if one.parent == qdisc.ROOT)
        return f"{root.kind} {root.handle >> 16:x}:"


def _of(one: Pod, **asked: str) -> dict[str, Any]:
    return pod(one.name, node="n1", addresses=one.addresses, **asked)


@pytest.fixture(scope="module")
def limited(world: World) -> Limited:
    """Its agent keeps limits, a server is outside, and whoever counts bytes counts frames.

    What leaves the node is masqueraded, so that no address names a pod.
    """
    for one in (world.app, world.near):
        world.node.run("ethtool", "-K", f"v-{one.name}", "tso", "off", "gso", "off")
    pace.serve(world.cluster.client)
    world.node.run("nft", MASQUERADE)
    return Limited(world)


@pytest.mark.parametrize(
    ("rate", "family", "flows"),
    [
        (1, "ipv4", 1), (1, "ipv4", 32), (10, "ipv4", 1), (10, "ipv6", 32),
        (100, "ipv4", 32),  # one flow alone does not get there in an emulated machine
    ],
)  # fmt: skip
def test_tcp_leaves_the_node_at_the_rate(
    limited: Limited, rate: int, family: str, flows: int
) -> None:
    """Within 1 %, masqueraded, counted in frames on the wire; Mbit/s."""
    limited.limit(egress=rate * MEGABIT)
    with pace.sending(
        limited.app, limited.client, getattr(limited.client, family), "-P", str(flows)
    ):
        found = pace.closest(limited.client, rate * MEGABIT, windows=8)
    assert found == pytest.approx(rate * MEGABIT, rel=WITHIN)


@pytest.mark.parametrize("rate", [1, 10])
def test_udp_leaves_the_node_at_the_rate(limited: Limited, rate: int) -> None:
    """Also when twice as much is sent: the rest is dropped, and fq starves nobody."""
    limited.limit(egress=rate * MEGABIT)
    send = ("-u", "-b", f"{2 * rate}M", "-l", "1400")
    with pace.sending(limited.app, limited.client, limited.client.ipv4, *send):
        found = pace.closest(limited.client, rate * MEGABIT)
    assert found == pytest.approx(rate * MEGABIT, rel=WITHIN)
    (row,) = limited.rows()
    assert row["egress"]["dropped"] > 0


def test_a_limit_follows_its_annotation(limited: Limited) -> None:
    """Halved under traffic, as the command line shows it, and then taken away."""
    limited.limit(egress=RATE)
    with pace.sending(limited.app, limited.client, limited.client.ipv4, "-P", "4"):
        limited.limit(egress=RATE // 2)
        assert pace.closest(limited.client, RATE / 2) == pytest.approx(RATE / 2, rel=WITHIN)
        (row,) = json.loads(limited.agent.tidegate("show", "limits", "-o", "json").stdout)
        assert (row["egress_bits_per_second"], row["state"]) == (RATE // 2, "enforced")
        assert row["egress"]["delayed_bytes"] > row["egress"]["delayed"] > 0
        limited.limit()
        assert pace.rate(limited.client, 2.0) > 1.5 * RATE


def test_what_a_pod_receives_is_paced(limited: Limited) -> None:
    """Within 1 %; senders are slowed down, by a short queue and no burst."""
    limited.limit(ingress=RATE)
    with pace.sending(limited.app, limited.client, limited.client.ipv4, "-R", "-P", "4"):
        assert pace.closest(limited.app, RATE) == pytest.approx(RATE, rel=WITHIN)


def test_scope_all_holds_between_pods_of_the_node(limited: Limited) -> None:
    """What goes to another pod here is paced at that pod's device."""
    limited.limit(egress=RATE)
    other = limited.other
    pace.serve(other)
    with pace.sending(limited.app, other, other.ipv4, "-P", "4"):
        assert pace.closest(other, RATE) == pytest.approx(RATE, rel=WITHIN)


def test_each_pod_behind_one_device_has_its_own_rate(limited: Limited) -> None:
    """As with a virtual machine that holds several: told apart by address, before masquerading."""
    guest = Pair("10.244.1.99", "fd00:10:244:1::99")
    limited.app.run("ip", "addr", "add", f"{guest.ipv4}/32", "dev", "eth0")
    limited.node.run("ip", "route", "add", f"{guest.ipv4}/32", "dev", f"v-{limited.app.name}")
    limited.manifests.write(
        "pods.yaml",
        _of(limited.app, egress=str(RATE)),
        pod("guest", node="n1", addresses=guest, egress=str(RATE // 2)),
    )
    both = [(RATE, None, "enforced"), (RATE // 2, None, "enforced")]
    until(lambda: limited.limits() == both, "limits in force", timeout=20)
    for source, asked in ((limited.app.ipv4, RATE), (guest.ipv4, RATE // 2)):
        args = (limited.client.ipv4, "-P", "4", "-B", source)
        with pace.sending(limited.app, limited.client, *args):
            assert pace.closest(limited.client, asked) == pytest.approx(asked, rel=WITHIN)


def test_a_pod_on_the_hosts_network_sends_at_its_rate(limited: Limited) -> None:
    """Found by its cgroup; the node's own traffic is not held back."""
    group = limited.node.group / "kubepods" / "pod1-2" / "container"
    group.mkdir(parents=True)
    limited.manifests.write(
        "pods.yaml",
        pod("on-host", node="n1", addresses=limited.node.addresses, host_network=True, uid="1-2",
            egress=str(RATE)),
    )  # fmt: skip
    until(lambda: [row["state"] for row in limited.rows()] == ["enforced"], "limit", timeout=20)
    with pace.sending(limited.node, limited.client, limited.client.ipv4, "-P", "4", group=group):
        assert pace.closest(limited.client, RATE) == pytest.approx(RATE, rel=WITHIN)
    with pace.sending(limited.node, limited.client, limited.client.ipv4):
        assert pace.rate(limited.client, 2.0) > 1.5 * RATE


@contextmanager
def queued(limited: Limited, *queue: str) -> Iterator[None]:
    """The device that leaves the node has this queue meanwhile, and no pod has a limit."""
    limited.limit()
    until(lambda: limited.queue("eth0") == "noqueue 0:", "no queue", timeout=20)
    for one in queue:
        limited.node.run("tc", *one.split(), timeout=30)
    try:
        yield
    finally:
        limited.node.run("tc", "qdisc", "del", "dev", "eth0", "root")


def test_a_thin_flow_stays_quick_beside_bulk(limited: Limited) -> None:
    """A request of the same pod, beside 32 bulk flows: p50 and p99 4 times below TBF's and HTB's.

    At 1 Mbit/s, where the queues of all three are far longer than an emulated machine hesitates,
    and in the same run; another pod's requests take no notice at all.
    """
    to = limited.client.ipv4
    limited.limit(egress=MEGABIT)
    with pace.sending(limited.app, limited.client, to, "-P", "32"):
        pace.rate(limited.client, WARM_UP)
        # An emulated machine stands still now and then; a queue that is long is long each time.
        tries = [pace.latency(limited.app, to, pause=PAUSE, seconds=10) for _ in range(3)]
        ours = min(tries, key=lambda one: one.p99)
        other = pace.latency(limited.other, to, pause=PAUSE, count=100)
    tbf = f"qdisc add dev eth0 root {' '.join(TBF)}"
    with queued(limited, tbf), pace.sending(limited.app, limited.client, to, "-P", "32"):
        pace.rate(limited.client, WARM_UP)
        theirs = pace.latency(limited.app, to, seconds=10)
    limited.node.run("ip", "link", "set", "eth0", "txqueuelen", "100")  # else they take 12 s
    htb = (
        "qdisc add dev eth0 root handle 1: htb default 1",
        f"class add dev eth0 parent 1: classid 1:1 htb rate {MEGABIT}",
    )
    with queued(limited, *htb), pace.sending(limited.app, limited.client, to, "-P", "32"):
        long = pace.latency(limited.app, to, count=4)
    said = f"ours {ours}, of another pod {other}, TBF {theirs}, HTB {long}"
    log.info(said)
    assert ours.p50 * 4 <= min(theirs.p50, long.p50), said
    assert ours.p99 * 4 <= min(theirs.p99, long.p99), said
    assert other.p99 * 4 <= theirs.p99, said


def test_a_device_with_several_queues_gets_fq_on_each(limited: Limited) -> None:
    """Below mq, one for each; afterwards its default is back."""
    node = limited.node
    node.run("ip", "link", "add", "several", "numtxqueues", "4", "type", "ifb")
    node.run("ip", "link", "set", "several", "up")
    before = limited.queue("several")
    with entered(NAMESPACES / node.namespace):
        index = tc.indexes()["several"]
        for step in choose(qdisc.queues()[index]).steps:
            qdisc.put(index, step)
        kinds = sorted(one.kind for one in qdisc.queues()[index])
        assert choose(qdisc.queues()[index]) == Choice()
        assert qdisc.take_off(index, OURS)
        assert not qdisc.take_off(index, OURS)
    assert kinds == ["fq"] * 4 + ["mq"]
    assert limited.queue("several") == before == "mq 0:"


def test_queues_go_with_the_last_limit_and_by_cleanup(limited: Limited) -> None:
    """Ours are there while there is a limit, and afterwards what was there before."""
    devices = ("eth0", "v-app-0")
    ways: tuple[Callable[[], object], ...] = (limited.limit, lambda: _clean_up(limited))
    for ends in ways:
        limited.limit(egress=RATE, ingress=RATE)
        assert [limited.queue(one) for one in devices] == ["fq 7d1e:"] * 2
        ends()
        for device in devices:
            until(lambda one=device: limited.queue(one) == "noqueue 0:", "no queue", timeout=20)


def _clean_up(limited: Limited) -> None:
    limited.agent.stop()
    limited.agent.tidegate("cleanup")
