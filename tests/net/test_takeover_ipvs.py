"""Coming from kube-proxy in mode ipvs: its sets, virtual servers and device go, without a gap."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.bed import Cluster, Outcome, Process, curl, until
from tests.bed.agent import command
from tests.bed.kubeproxy import (
    ENDPOINTS,
    KINDS_OF_SETS,
    NODE_PORT,
    VIPS,
    ipvs,
    kubelet_and_cni,
    saved,
    set_name,
)
from tests.bed.network import Pair
from tests.net.test_takeover import (
    NEW_CONNECTIONS,
    ONE_CONNECTION,
    SAID,
    asking,
    flushed,
    ip6,
    restore,
    rules,
)
from tests.net.world import FAMILIES, WEB, World, answers, url

VIP = Pair(VIPS["ipv4"], VIPS["ipv6"])
DEVICE = "kube-ipvs0"
OTHERS = ("KUBE-SRC-AAAAAAAA", "KUBE-DST-AAAAAAAA", "mine")
"""kube-router's, and one more that is none of kube-proxy's."""
SETTINGS = ("conntrack", "expire_nodest_conn")
"""Of IPVS, as kube-proxy has them: 1."""
MOST_SECONDS = 3.0
"""An emulated machine stands still for a second now and then."""
SETS = """
import json, socket, sys
from pyroute2 import IPSet
with IPSet() as sets:
    for name, kind, family in json.loads(sys.argv[1]):
        if kind == "bitmap:port":
            sets.create(name, kind, socket.AF_UNSPEC, bitmap_ports_range=(0, 65535))
        else:
            sets.create(name, kind, getattr(socket, family))
    print(json.dumps([one.get_attr("IPSET_ATTR_SETNAME") for one in sets.list()]))
"""
"""Makes sets; the names of all."""
SERVERS = """
import json, sys
from pyroute2 import IPVS, IPVSDest, IPVSService
from pyroute2.netlink.exceptions import NetlinkError
try:
    servers = IPVS()
except NetlinkError:
    print(json.dumps(None))
    sys.exit()
for address, port, protocol, ends in json.loads(sys.argv[1]):
    service = IPVSService(addr=address, port=port, protocol=protocol, sched_name="rr")
    if ":" in address:
        service["netmask"] = "128.0.0.0"  # the length, as a word
    servers.service("add", service=service)
    for end, target in ends:
        servers.dest("add", service=service, dest=IPVSDest(addr=end, port=target, fwd_method=0))
print(json.dumps(len(list(servers.service("dump")))))
"""
"""Makes virtual servers; how many there are, or null where the kernel has no IPVS."""


@pytest.fixture(scope="module")
def world(one_node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    """No agent yet; the service that kube-proxy serves."""
    world = World(one_node, tmp_path_factory.mktemp("manifests"))
    objects = world.objects("old", world.webs, VIP, target=WEB, node_port=NODE_PORT)
    world.manifests.write("old.yaml", *objects)
    return world


@pytest.fixture
def left(world: World) -> Iterator[None]:
    """What kube-proxy left, but for virtual servers; and sets of others, one of them in use."""
    if not shutil.which("iptables-nft-restore"):
        pytest.skip("needs iptables-nft-restore")
    named = {"ipv4": "AF_INET", "ipv6": "AF_INET6"}
    made = [
        (set_name(family, name), kind, named[family])
        for family in FAMILIES
        for name, kind in KINDS_OF_SETS.items()
    ]
    made += [(name, "hash:ip", "AF_INET") for name in OTHERS]
    # Sets of others that bear a name of kube-proxy's and that a rule of theirs uses.
    made.append(("KUBE-NODE-PORT-UDP", "bitmap:port", "AF_INET"))
    assert set(sets(world, made)) == {name for name, *_ in made}
    for family, program in zip(FAMILIES, ("iptables-nft", ip6("iptables-nft")), strict=True):
        restore(world, f"{program}-restore", saved(kubelet_and_cni(family)))
        restore(world, f"{program}-restore --noflush", saved(ipvs(family)))
    world.node.run(
        "iptables-nft", "-A", "INPUT", "-p", "udp", "-m", "set", "--match-set",
        "KUBE-NODE-PORT-UDP", "dst", "-j", "ACCEPT",
    )  # fmt: skip
    # Any kind of device does where the kernel has no dummies.
    kinds = ("dummy", "bridge")
    next(kind for kind in kinds if made_device(world, kind))
    world.node.run("ip", "link", "set", DEVICE, "up")
    for address, length in zip(VIP, (32, 128), strict=True):
        world.node.run("ip", "addr", "add", f"{address}/{length}", "dev", DEVICE, "nodad")
    yield
    flushed(world)
    world.node.run("ip", "link", "del", DEVICE, check=False)
    gone = "from pyroute2 import IPSet; IPSet().destroy()"
    world.node.run(sys.executable, "-c", gone)


def made_device(world: World, kind: str) -> bool:
    """Is it there now?"""
    return not world.node.run("ip", "link", "add", DEVICE, "type", kind, check=False).returncode


def sets(world: World, made: object = ()) -> list[str]:
    """Make these sets; the names of all that are there."""
    return list(json.loads(world.node.run(sys.executable, "-c", SETS, json.dumps(made)).stdout))


def servers(world: World, made: object = ()) -> int | None:
    """Make these virtual servers; how many there are, None where the kernel has no IPVS."""
    found: int | None = json.loads(
        world.node.run(sys.executable, "-c", SERVERS, json.dumps(made)).stdout
    )
    return found


def devices(world: World) -> str:
    """The names of all."""
    return world.node.run("ip", "-br", "link").stdout


def assert_only_theirs(world: World) -> None:
    """Nothing of kube-proxy's is left but what a rule of others uses."""
    assert set(sets(world)) == {*OTHERS, "KUBE-NODE-PORT-UDP"}
    assert DEVICE not in devices(world)
    left_over = rules(world)
    for name in ("KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-IPVS", "KUBE-NODE-PORT -", "KUBE-LOAD"):
        assert name not in left_over
    for name in ("KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "FLANNEL"):
        assert name in left_over


def test_sets_rules_and_device_go(world: World, left: None) -> None:
    """Once services are served; others' sets stay, and those that others' rules use."""
    assert left is None
    agent = world.node.agent(world.manifests.directory, "--kube-proxy-rules", "remove")
    try:
        until(lambda: f"{SAID}: device {DEVICE}" in agent.log, "take-over", timeout=30)
        assert_only_theirs(world)
        for family in FAMILIES:
            assert curl(world.app, url(getattr(VIP, family))).outcome is Outcome.OK
        assert "could not remove" not in agent.log
    finally:
        agent.stop()
        agent.tidegate("cleanup")


def test_cleanup_takes_them_too(world: World, left: None) -> None:
    """`--cleanup`, as kube-proxy's own, without an agent before it; twice is as good as once."""
    assert left is None
    argv = [*command(), "agent", "--cleanup", "--bpffs", str(world.node.directory / "none")]
    said = world.node.run(*argv).stderr
    for name in (f"device {DEVICE}", "set KUBE-CLUSTER-IP", "set KUBE-6-LOOP-BACK"):
        assert f"removed {name}" in said
    assert_only_theirs(world)
    assert "removed" not in world.node.run(*argv).stderr


def test_no_connection_through_ipvs_meets_a_gap(world: World, left: None) -> None:
    """The servers go at once, no other's do: old connections go on, new ones never fail.

    Nor do those wait that come after, from ports that were just used through IPVS: a SYN-ACK that
    it took for an old connection's would cost seconds.
    """
    assert left is None
    ends = {family: [(one, WEB) for one in ENDPOINTS[family]] for family in FAMILIES}
    ours = [(getattr(VIP, family), 80, 6, ends[family]) for family in FAMILIES]
    ours.append((world.node.ipv4, NODE_PORT, 6, ends["ipv4"]))
    theirs = [("192.0.2.77", 80, 6, ends["ipv4"])]
    if servers(world, [*ours, *theirs]) is None:
        pytest.skip("this kernel has no IPVS (CONFIG_IP_VS)")
    for setting in SETTINGS:
        world.node.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/vs/{setting}")
    held = {family: asking(world, ONE_CONNECTION, getattr(VIP, family)) for family in FAMILIES}
    new = {family: asking(world, NEW_CONNECTIONS, getattr(VIP, family)) for family in FAMILIES}
    client = world.cluster.client
    outside = [
        asking(world, ONE_CONNECTION, world.node.ipv4, client=client, port=NODE_PORT)
        for _ in range(4)
    ]
    # Few programs: where they are compiled under emulation, each takes half a minute.
    flags = ("--kube-proxy-rules", "remove", "--xdp", "off", "--pod-devices", "off")
    agent = world.node.agent(world.manifests.directory, *flags)
    try:
        until(
            lambda: f"{SAID}: device {DEVICE}" in agent.log, "end", timeout=60,
            process=agent.process,
        )  # fmt: skip
        assert "connections through IPVS go on by connection tracking" in agent.log
        assert servers(world) == 1
        assert_only_theirs(world)
        for process in new.values():
            said = answers(process)
            assert said["failed"] == []
            assert set(said["seen"]) == {"web-0", "web-1"}
        later = [asking(world, NEW_CONNECTIONS, getattr(VIP, family)) for family in FAMILIES]
        for process in later:
            await_answers(process, 100)
            assert answers(process)["slowest"] < MOST_SECONDS
        for process in (*held.values(), *outside):
            await_answers(process, process.output.count("answered") + 50)
            said = answers(process)
            assert not said["error"]
            assert len(said["peers"]) == 1
    finally:
        agent.stop()
        agent.tidegate("cleanup")


def await_answers(process: Process, count: int) -> None:
    """Returns once there were so many."""
    until(lambda: process.output.count("answered") >= count, "answers", timeout=30, process=process)
