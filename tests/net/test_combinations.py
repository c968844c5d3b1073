"""Every way in by every way on: XDP in the driver, generic XDP, tc; here, by SNAT, by DSR.

All in both families and both protocols, DSR in both its forms, also where others stand in the way,
and while the agent and its programs change.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from bpf.layout import Node as NodeRecord
from bpf.pins import Pins
from tests.bed import Node, Pod, Talk
from tests.bed.host import PROBES
from tests.bed.manifests import node as manifest_of
from tests.bed.process import Process
from tests.net.bulk import to_and_fro
from tests.net.outside import FAMILY, Met, Outside, Place
from tests.net.world import ECHO, FAMILIES, WEB, World, url

MODES = ("native", "generic", "off")
pytestmark = pytest.mark.parametrize(
    "world", [("two_nodes", "--xdp", mode) for mode in MODES], ids=MODES, indirect=True
)
WAYS = {
    "here": {"tidegate.io/forwarding": "snat"},
    "snat": {"tidegate.io/forwarding": "snat"},
    "ipip": {"tidegate.io/forwarding": "dsr", "tidegate.io/dsr-dispatch": "ipip"},
    "opt": {"tidegate.io/forwarding": "dsr", "tidegate.io/dsr-dispatch": "opt"},
}
"""What a service asks for, by the way on that its packets take. One's backend is on n1."""
WAY = pytest.mark.parametrize("way", WAYS)
LINES = 7000
TARGETS = {"tcp": WEB, "udp": ECHO, "lines": LINES}
ROOT = Path(__file__).parents[2]
FIREWALL = """
table inet others {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    ip daddr 10.244.0.0/16 accept
    ip6 daddr fd00:10:244::/48 accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    meta l4proto { icmp, icmpv6 } accept
  }
  chain leaving {
    type nat hook postrouting priority srcnat;
    oifname eth0 ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
    oifname eth0 ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade
  }
}
"""
"""What a careful administrator and a CNI plugin put there; nothing in it knows of services."""

Places = dict[tuple[str, str], dict[str, Place]]
"""By the way and the kind of server; those by kind of frontend."""


@pytest.fixture(scope="module")
def places(outside: Outside) -> Places:
    """Where each kind of server is asked for, by the way that its packets go."""
    world = outside.world
    world.write(
        "nodes", *(manifest_of(one.name, addresses=one.addresses) for one in world.cluster.nodes)
    )
    for pod in world.webs:
        pod.line_echo(LINES)
    return {
        (way, kind): expose(outside, way, kind, [own(world, way)])
        for way in WAYS
        for kind in TARGETS
    }


def own(world: World, way: str) -> Pod:
    """The backend that a service has at first."""
    return world.near if way == "here" else world.far


def expose(
    outside: Outside, way: str, kind: str, pods: list[Pod], places: dict[str, Place] | None = None
) -> dict[str, Place]:
    """A service that is forwarded this way, and where."""
    return outside.expose(
        f"{way}-{kind}",
        pods,
        places=places,
        protocol="UDP" if kind == "udp" else "TCP",
        target=TARGETS[kind],
        annotations=WAYS[way],
    )


def assert_all_answer(outside: Outside, places: Places) -> None:
    """By every way, in each family and protocol; and who sees whose address."""
    for (way, kind), found in places.items():
        for family in FAMILIES if kind != "lines" else ():
            met = outside.ask(kind.upper(), found["balancer"], family)
            seen = outside.world.node if way == "snat" else outside.client
            wanted = Met(own(outside.world, way).name, getattr(seen, family))
            assert met == wanted, (way, kind, family)


def volley(outside: Outside, place: Place, family: str, *options: str) -> Any:
    """Numbered datagrams; see the probe."""
    where = (getattr(place.at, family), str(place.port))
    return outside.client.python(PROBES / "volley.py", *where, *options, timeout=30)


def test_xdp_knows_which_ports_may_be_node_ports(outside: Outside, places: Places) -> None:
    """What is elsewhere it hands up unread; what is within it serves itself."""
    ports = {found["node_port"].port for found in places.values()}
    told = NodeRecord.unpack(Pins(outside.world.agent.bpffs).open_array("node").read(0))
    assert (told.first_port, told.last_port) == (min(ports), max(ports))


SNIFF = """
import json, socket, struct, sys
AUXDATA = 8
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as taken:
    taken.bind(("eth0", 0))
    taken.setsockopt(263, AUXDATA, 1)
    taken.settimeout(5)
    print("ready", file=sys.stderr, flush=True)
    seen, frame = [], b""
    while b"at all" not in frame:
        frame, more, _, sender = taken.recvmsg(4096, 64)
        status, *_, tag, kind = struct.unpack("=IIIHHHH", more[0][2])
        if status & 16:  # TP_STATUS_VLAN_VALID: the kernel took the tag off
            frame = frame[:12] + struct.pack("!HH", kind, tag) + frame[12:]
        seen.append(frame.hex())
print(json.dumps(seen))
"""
"""Frames that come to eth0, tags and all, behind XDP and before tc; a text in the last ends it."""
SEND = """
import json, socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind((sys.argv[1], 0))
    print(json.dumps([wire.send(bytes.fromhex(one)) for one in sys.argv[2:]]))
"""


def strange_frames(outside: Outside, place: Place) -> dict[str, bytes]:
    """What is no plain packet of a service, to one's address or to the node's."""
    (shown,) = json.loads(outside.world.node.run("ip", "-j", "link", "show", "eth0").stdout)
    link = Ether(dst=shown["address"], src="02:00:00:00:00:fe")
    node, client = outside.world.node, outside.client
    text = UDP(sport=4000, dport=80) / b"this is no service's"
    v4 = {"src": client.ipv4, "dst": place.at.ipv4}
    own = {"src": client.ipv4, "dst": node.ipv4}
    v6 = IPv6(src=client.ipv6, dst=place.at.ipv6)
    frames = {
        "VLAN": link / Dot1Q(vlan=7) / IP(**v4) / text,
        "VLAN, IPv6": link / Dot1Q(vlan=7) / v6 / text,
        "two tags": link / Dot1AD(vlan=7) / Dot1Q(vlan=8) / IP(**v4) / text,
        "IP options": link / IP(**own, options=[IPOption(b"\x94\x04\0\0")]) / text,
        "a fragment": link / IP(**own, flags="MF", id=7) / text,
        "a later one": link / IP(**own, frag=3, proto=17, id=7) / text,
        "IPv6 options": link / IPv6(src=client.ipv6, dst=node.ipv6) / IPv6ExtHdrDestOpt() / text,
        "SCTP": link / IP(**v4) / SCTP(sport=4000, dport=80) / b"this is no service's",
        "GRE": link / IP(**v4, proto=47) / b"\0\0\x08\0 this is no service's",
        "an experiment": Ether(dst=link.dst, src=link.src, type=0x88B5) / b"no service's at all",
    }
    return {name: bytes(frame) for name, frame in frames.items()}


def test_what_is_no_services_passes_unharmed(outside: Outside, places: Places) -> None:
    """VLAN tags, IP options, fragments, other protocols: each frame comes as it was sent."""
    frames = strange_frames(outside, places["snat", "udp"]["balancer"])
    sniffing = outside.world.node.spawn(
        sys.executable, "-IS", "-c", SNIFF,
        ready=lambda process: "ready" in process.output,
    )  # fmt: skip
    outside.world.cluster.router.python(SEND, "n1", *(frame.hex() for frame in frames.values()))
    sniffing.wait()
    came = {bytes.fromhex(one) for one in json.loads(sniffing.output.splitlines()[-1])}
    assert {name for name, frame in frames.items() if frame not in came} == set()


@FAMILY
@WAY
def test_megabytes(
    outside: Outside, places: Places, megabytes: Path, way: str, family: str
) -> None:
    """20 MB of TCP arrive whole, both ways."""
    place = places[way, "tcp"]["balancer"]
    to_and_fro(outside.client, url(getattr(place.at, family), place.port), megabytes)


@FAMILY
@WAY
def test_megabytes_of_datagrams(outside: Outside, places: Places, way: str, family: str) -> None:
    """Each of 3,000 datagrams of 1,300 octets comes back as it was."""
    seen = volley(
        outside, places[way, "udp"]["balancer"], family, "--count", "3000", "--size", "1300"
    )
    server = own(outside.world, way).name
    assert seen == {
        "sent": 3000, "answered": 3000, "wrong": 0, "servers": {server: 3000}, "lost": [],
    }  # fmt: skip


def set_everywhere(hosts: list[Node], setting: str, value: str) -> None:
    """A setting of all devices that are there."""
    for host in hosts:
        text = f"for one in /proc/sys/net/ipv4/conf/*/{setting}; do echo {value} > $one; done"
        host.run("sh", "-c", text)


def set_mtu(world: World, octets: int) -> None:
    """Of the nodes' cables, and of the bridge that joins them."""
    names = [*(f"n{node.number}" for node in world.cluster.nodes), "br0"]
    script = "".join(f"ip link set {name} mtu {octets}\n" for name in names)
    world.cluster.claim.enter("wire", script)
    for node in world.cluster.nodes:
        node.run("ip", "link", "set", "eth0", "mtu", str(octets))


def set_offload(world: World, state: str) -> None:
    """Whether checksums are left to devices, as processes of virtual machines have them."""
    for host in (world.cluster.client, *world.cluster.nodes, *world.pods.values()):
        host.run("ethtool", "-K", "eth0", "tx", state)
    names = ["outside", *(f"n{node.number}" for node in world.cluster.nodes)]
    script = "".join(f"ethtool -K {name} tx {state} > /dev/null\n" for name in names)
    world.cluster.claim.enter("wire", script)


@contextmanager
def surroundings(world: World, kind: str) -> Iterator[None]:
    """What a node may have beside us, for a while."""
    nodes = world.cluster.nodes
    with ExitStack() as stack:
        if kind.startswith("rp_filter"):
            stack.callback(set_everywhere, nodes, "rp_filter", "0")
            set_everywhere(nodes, "rp_filter", kind[-1])
        elif kind == "firewall":
            for node in nodes:
                stack.callback(node.run, "nft", "delete", "table", "inet", "others")
                node.run("nft", FIREWALL)
        elif kind == "MTU 1450":
            stack.callback(set_mtu, world, 1500)
            set_mtu(world, 1450)
        elif kind == "unfinished checksums":
            stack.callback(set_offload, world, "off")
            set_offload(world, "on")
        yield


@pytest.mark.parametrize(
    "kind", ["rp_filter=1", "rp_filter=2", "firewall", "MTU 1450", "unfinished checksums"]
)
def test_surroundings(outside: Outside, places: Places, tmp_path: Path, kind: str) -> None:
    """Every way goes on where others check sources, track connections, and leave less room."""
    some = tmp_path / "some"
    some.write_bytes(bytes(range(256)) * 2048)
    with surroundings(outside.world, kind):
        assert_all_answer(outside, places)
        for way in WAYS:
            for family in FAMILIES:
                place = places[way, "tcp"]["balancer"]
                to_and_fro(outside.client, url(getattr(place.at, family), place.port), some)


def test_live_flows_over_changes(outside: Outside, places: Places) -> None:
    """None breaks and none moves while others join its service and leave, and agents restart."""
    world = outside.world
    live = {key: found for key, found in places.items() if key[1] != "tcp"}
    talks = {
        (way, kind, family): talk_to(outside, kind, found["balancer"], family)
        for (way, kind), found in live.items()
        for family in FAMILIES
    }
    for pods in (world.webs, None, world.webs, None):
        for (way, kind), found in live.items():
            expose(outside, way, kind, pods or [own(world, way)], found)
    for agent in world.agents:
        agent.kill()
        agent.start()
    for (way, kind, family), talk in talks.items():
        talk.await_answer()
        seen = talk.stop()
        assert (seen["failures"], seen["connects"]) == ([], 1), (way, kind, family)
        assert set(seen["servers"]) == {own(world, way).name}, (way, kind, family)


def talk_to(outside: Outside, kind: str, place: Place, family: str) -> Talk:
    """A client outside that goes on asking over one flow."""
    protocol = "udp" if kind == "udp" else "tcp"
    address = getattr(place.at, family)
    return Talk(outside.client, protocol, address, place.port, "--timeout", "3")


def programs(world: World) -> set[int]:
    """The numbers of what is in force on n1's eth0, at all hooks."""
    (link,) = json.loads(world.node.run("ip", "-j", "-d", "link", "show", "eth0").stdout)
    found = {link["xdp"]["prog"]["id"]} if "xdp" in link else set()
    for side in ("ingress", "egress"):
        shown = world.node.run("tc", "-j", "filter", "show", "dev", "eth0", side).stdout
        options = [one.get("options", {}) for one in json.loads(shown)]
        found |= {one["prog"]["id"] for one in options if "prog" in one}
    return found


@pytest.fixture(scope="module")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> str:
    """How a version is called whose programs are of another text."""
    folder = tmp_path_factory.mktemp("version")
    for name in ("bandwidth", "bpf", "lb", "maglev"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("lb.c", "xdp.c"):
        with (folder / "bpf" / name).open("a") as text:
            text.write("/* Another version. */\n")
    return f"env PYTHONPATH={folder} {sys.executable} -P -m lb"


def test_programs_replaced_under_load(
    outside: Outside, places: Places, other_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another text, to other tables: no packet is lost, of flows that are there or new."""
    world = outside.world
    volleys = {
        (way, family): begin_volley(outside, places[way, "udp"]["balancer"], family)
        for way in WAYS
        for family in FAMILIES
    }
    before = programs(world)
    for agent in world.agents:
        agent.stop()
    with monkeypatch.context() as patch:
        patch.setenv("TIDEGATE", other_version)
        for agent in world.agents:
            agent.start()
    between = programs(world)
    for agent in world.agents:
        flags = agent.flags
        agent.flags = (*flags, "--max-backends", "4096")
        agent.restart()
        agent.flags = flags
    after = programs(world)
    for (way, family), process in volleys.items():
        process.end()
        seen = json.loads(process.output.splitlines()[-1])
        assert seen["sent"] > 200
        assert (seen["lost"], seen["wrong"]) == ([], 0), (way, family)
        assert seen["answered"] == seen["sent"]
        assert set(seen["servers"]) == {own(world, way).name}
    assert len(before) == len(between) == (2 if "off" in world.agent.flags else 3)
    assert not before & between
    assert not between & after


def begin_volley(outside: Outside, place: Place, family: str) -> Process:
    """200 datagrams a second until SIGTERM, a new flow each tenth."""
    return outside.client.spawn(
        sys.executable, "-IS", str(PROBES / "volley.py"), getattr(place.at, family),
        str(place.port), "--rate", "200", "--flow", "10",
        ready=lambda process: "answered" in process.output,
    )  # fmt: skip
