"""What others take off or alter is noticed and put back, and traffic flows as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress

import pytest

from bpf import libbpf
from bpf.kept import key_of
from bpf.maps import KernelHash
from bpf.pins import Pins
from tests.bed import Outcome, curl, until
from tests.bed.manifests import pod
from tests.bed.network import Pair
from tests.net.world import FAMILIES, World, url

pytestmark = pytest.mark.parametrize(
    "world",
    [("one_node", "--repair-interval", "0.3", "--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48")],
    indirect=True,
)

PORT = 30080
PORTS = "/proc/sys/net/ipv4/ip_local_reserved_ports"


@pytest.fixture(scope="module")
def web(world: World) -> Pair:
    """A service on a node port, so that it has a ring, with source ranges; and a pod's limits."""
    limited = pod("app-0", node="n1", addresses=world.app.addresses, egress="9G", ingress="9G")
    world.write("limited", limited)
    return world.serve(
        "web", world.webs, node_port=PORT, kind="LoadBalancer",
        load_balancer=[{"ip": "203.0.113.9"}, {"ip": "2001:db8:9::9"}],
        source_ranges=["192.0.2.0/24", "2001:db8::/64"],
    )  # fmt: skip


def serves(world: World, at: Pair) -> bool:
    """To a pod, and to the client outside; in both families."""
    asked = [
        *((world.app, url(getattr(at, family))) for family in FAMILIES),
        *((world.cluster.client, url(getattr(world.node, family), PORT)) for family in FAMILIES),
    ]
    return all(curl(client, to).outcome is Outcome.OK for client, to in asked)


def emptied(name: str) -> Callable[[World], None]:
    """Every entry of a table is removed."""

    def harm(world: World) -> None:
        table: KernelHash = Pins(world.agent.bpffs).open_hash(name)
        table.remove([key for key, _ in table.items()])

    return harm


def zeroed(name: str) -> Callable[[World], None]:
    """Every element of an array becomes zero."""

    def harm(world: World) -> None:
        table = Pins(world.agent.bpffs).open_array(name)
        table.write(0, bytes(table.size * table.capacity))

    return harm


def detached(world: World) -> None:
    """All socket programs are taken off, as by `bpftool link detach`."""
    for path in (world.agent.bpffs / "links").iterdir():
        libbpf._call("bpf_link_detach", libbpf.open_pin(str(path)), what="detach")


def unpinned(world: World) -> None:
    """All pins are removed."""
    for name in ("links", "programs", "maps"):
        shutil.rmtree(world.agent.bpffs / name)


def filter_gone(world: World) -> None:
    """The program for what comes in is taken off."""
    world.node.run("tc", "filter", "del", "dev", "eth0", "ingress")


def pods_filter_gone(world: World) -> None:
    """The same, of the node's end of a pod's device."""
    world.node.run("tc", "filter", "del", "dev", "v-app-0", "ingress")


def pods_queue_gone(world: World) -> None:
    """And its qdisc."""
    world.node.run("tc", "qdisc", "del", "dev", "v-app-0", "clsact")


def calls_gone(world: World) -> None:
    """No program hands over to another any more."""
    for path in (world.agent.bpffs / "programs").glob("*/tails"):
        table = libbpf.open_pin(str(path))
        for place in range(8):
            with suppress(FileNotFoundError):
                libbpf.delete(table, key_of(place))


def calls_swapped(world: World) -> None:
    """Some hand over to a wrong one."""
    for path in (world.agent.bpffs / "programs").glob("*/tails"):
        table, program = (libbpf.open_pin(str(one)) for one in (path, path.parent / "lb_odd_in"))
        for place in (2, 3, 4):
            libbpf.update(table, key_of(place), key_of(program))


def neighbours_gone(world: World) -> None:
    """All that the kernel knows of who is next on the wire."""
    world.node.run("ip", "neigh", "flush", "dev", "eth0", "nud", "all")


def queue_gone(world: World) -> None:
    """The qdisc is removed, and with it both programs."""
    world.node.run("tc", "qdisc", "del", "dev", "eth0", "clsact")


def ports_given_up(world: World) -> None:
    """Somebody else writes the setting."""
    world.node.run("sh", "-c", f"echo 8080 > {PORTS}")


def repaired(log: str) -> list[str]:
    """What it says was put back."""
    return [line for line in log.splitlines() if "put back: " in line]


HARM = [
    # what, how, what the log says
    ("map", emptied("frontends"), "frontend"),
    ("map", emptied("addresses"), "node address"),
    ("map", emptied("names"), "name"),
    ("map", emptied("ranges"), "source range"),
    ("map", zeroed("services"), "entry"),
    ("map", zeroed("backends"), "of its backends"),
    ("map", zeroed("slots"), "list of its backends"),
    ("map", zeroed("rings"), "ring"),
    ("map", zeroed("node"), "of this node"),
    ("map", emptied("cidrs"), "address range 10.244.0.0/16"),
    ("map", emptied("vips"), "service address 203.0.113.9"),
    ("device", zeroed("devices"), "what XDP knows"),
    ("bandwidth", emptied("pods"), "a pod's limits"),
    ("bandwidth", emptied("limit_names"), "the name of limit 1"),
    ("bandwidth", zeroed("limits"), "limit 1, which was altered"),
    ("tail_call", calls_gone, "lb_begin of lb.c"),
    ("tail_call", calls_swapped, "lb_answer of pod.c"),
    ("neighbour", neighbours_gone, "neighbour 192.168.77.1"),
    ("socket_program", detached, "program connect4"),
    ("pin", unpinned, "pin"),
    ("packet_program", filter_gone, "programs of eth0"),
    ("packet_program", queue_gone, "programs of eth0"),
    ("packet_program", pods_filter_gone, "programs of v-app-0"),
    ("packet_program", pods_queue_gone, "programs of v-app-0"),
    ("reserved_ports", ports_given_up, "reserved ports"),
]


NOTICED = [
    (emptied("cidrs"), "address range 10.244.0.0/16 is missing"),
    (emptied("vips"), "service address 203.0.113.9 is missing"),
    (emptied("addresses"), "node address 127.0.0.1 is missing"),
    (zeroed("devices"), "what XDP knows of device"),
    (emptied("pods"), "a pod's limits is missing"),
    (zeroed("limits"), "limit 1 is altered"),
    (calls_gone, "tail call lb_begin of lb.c is missing or altered"),
    (pods_filter_gone, "pod_in is detached from v-app-0"),
]
"""How, and what `verify` says."""


@pytest.mark.parametrize(
    ("what", "harm", "said"), HARM, ids=[f"{what}-{said}" for what, _, said in HARM]
)
def test_put_back(
    world: World, web: Pair, what: str, harm: Callable[[World], None], said: str
) -> None:
    """It serves before and after; it is counted, logged, and `verify` finds nothing."""
    agent = world.agent
    assert serves(world, web)
    logged, before = len(agent.log), agent.status()["repairs"][what]
    harm(world)
    until(
        lambda: agent.status()["repairs"][what] > before
        and any(said in line for line in repaired(agent.log[logged:]))
        and not agent.tidegate("verify", check=False).returncode,
        "repair", timeout=30,
    )  # fmt: skip
    assert serves(world, web)
    lines = repaired(agent.log[logged:])
    assert len(lines) == len(set(lines)), "each is logged once"
    assert agent.tidegate("status").returncode == 0


def test_without_pins_nothing_stops(world: World, web: Pair) -> None:
    """Removed pins cost nobody a connection, and a restart finds everything where it was."""
    agent = world.agent
    before = sorted(path.name for path in agent.bpffs.rglob("*"))
    count = agent.status()["repairs"]["pin"]
    shutil.rmtree(agent.bpffs / "links")
    assert serves(world, web)
    until(lambda: agent.status()["repairs"]["pin"] >= count + 9, "repair", timeout=20)
    until(
        lambda: sorted(path.name for path in agent.bpffs.rglob("*")) == before,
        "the XDP program's link", timeout=20,
    )  # fmt: skip
    agent.restart()
    assert " 0 writes" in agent.log
    assert serves(world, web)


def test_counted_in_metrics(world: World, web: Pair) -> None:
    """`tidegate_repairs_total` has every kind, also those that never happened."""
    assert web
    counts = world.agent.status()["repairs"]
    text = curl(world.node, "http://127.0.0.1:10249/metrics").text
    for what, count in counts.items():
        assert f'tidegate_repairs_total{{what="{what}"}} {float(count)}' in text
    assert set(counts) == {what for what, _, _ in HARM}


def test_verify_says_what_differs(world: World, web: Pair) -> None:
    """With no repairs beside, it finds each, and nothing else; a start puts it back."""
    agent = world.agent
    flags = agent.flags
    agent.flags = (*flags, "--repair-interval", "0")
    agent.restart()
    try:
        until(lambda: not agent.tidegate("verify", check=False).returncode, "start", timeout=10)
        for harm, _ in NOTICED:
            harm(world)
        found = agent.tidegate("verify", check=False)
        assert found.returncode == 1
        for _, said in NOTICED:
            assert said in found.stdout
    finally:
        agent.flags = flags
        agent.restart()
    until(lambda: not agent.tidegate("verify", check=False).returncode, "repair", timeout=30)
    assert serves(world, web)
