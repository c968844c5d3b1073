"""The host's own traffic: whatever is no service's goes by, not one byte changed, uncounted."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from tests.packet.bench import NODE, NODE_MAC, ROUTER_MAC, Bench
from tests.packet.case import Case, play
from tests.packet.given import service
from tests.packet.packets import TEXT, ends, tcp, udp

CLIENT, CLIENT6 = "198.51.100.10", "2001:db8:51::10"
VIP, VIP6 = "203.0.113.10", "2001:db8:113::10"
GIVEN = (
    service(f"{VIP}:80/tcp", "10.244.2.5:8080 n2", name="tcp4"),
    service(f"[{VIP6}]:80/tcp", "[fd00:10:244:2::5]:8080 n2", name="tcp6"),
    service(f"{NODE[4]}:30080/tcp", "10.244.1.5:8080 n1", kind="node port", name="np4"),
    service(f"[{NODE[6]}]:30080/tcp", "[fd00:10:244:1::5]:8080 n1", kind="node port", name="np6"),
)
LINK = Ether(src=ROUTER_MAC, dst=NODE_MAC)
SEGMENT = TCP(sport=40000, dport=80) / TEXT
V4, V6 = ends(CLIENT, VIP), ends(CLIENT6, VIP6)


def elsewhere(packet: Packet) -> Packet:
    """The packet as a device in promiscuous mode sees it."""
    packet[Ether].dst = "02:00:00:00:00:77"
    return packet


OTHERS = (
    Case("a service's, but another machine's", GIVEN, elsewhere(tcp(CLIENT, 1, VIP, 80))),
    Case("the same over IPv6", GIVEN, elsewhere(tcp(CLIENT6, 1, VIP6, 80))),
)
ROWS = (
    Case("ARP request", GIVEN, LINK / ARP(psrc="192.0.2.254", pdst=NODE[4])),
    Case("LLDP", GIVEN, Ether(src=ROUTER_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / TEXT),
    Case("802.3 length in place of a type", GIVEN, Ether(type=40) / Raw(bytes(40))),
    Case("ping", GIVEN, ends(CLIENT, NODE[4]) / ICMP() / TEXT),
    Case("ping, IPv6", GIVEN, ends(CLIENT6, NODE[6]) / ICMPv6EchoRequest(data=TEXT)),
    Case("neighbour solicitation", GIVEN, ends(CLIENT6, NODE[6], 255) / ICMPv6ND_NS(tgt=NODE[6])),
    Case("another port of a service's address", GIVEN, tcp(CLIENT, 40000, VIP, 81)),
    Case("another port, IPv6", GIVEN, tcp(CLIENT6, 40000, VIP6, 81)),
    Case("another protocol on a service's port", GIVEN, udp(CLIENT, 40000, VIP, 80)),
    Case("another protocol, IPv6", GIVEN, udp(CLIENT6, 40000, VIP6, 80)),
    Case(
        "a connection to a stray address that goes on", GIVEN,
        tcp(CLIENT, 1, "10.97.0.1", 80, flags="A"),
    ),
    Case(
        "the same in IPv6", GIVEN,
        tcp(CLIENT6, 1, "fd00:10:97::1", 80, flags="A"),
    ),
    Case("out, next to a ServiceCIDR", GIVEN, udp(CLIENT, 1, "10.98.0.0", 80)),
    Case("out, next to one, IPv6", GIVEN, udp(CLIENT6, 1, "fd00:10:97::1:0", 80)),
    Case("in from a stray address", GIVEN, udp("10.97.0.1", 80, CLIENT, 1)),
    Case("ssh of the node", GIVEN, tcp(CLIENT, 40000, NODE[4], 22)),
    Case("ssh of the node, IPv6", GIVEN, tcp(CLIENT6, 40000, NODE[6], 22)),
    Case("a node port at an address that is not the node's", GIVEN, tcp(CLIENT, 40000, VIP, 30080)),
    Case("an unknown port of the range for SNAT", GIVEN, tcp(CLIENT, 8080, NODE[4], 50000)),
    Case("an unknown port of the range, IPv6", GIVEN, tcp(CLIENT6, 8080, NODE[6], 50000)),
    Case("an unknown port of the range, UDP", GIVEN, udp(CLIENT, 53, NODE[4], 50000)),
    Case("an unknown port of the range, UDP, IPv6", GIVEN, udp(CLIENT6, 53, NODE[6], 50000)),
    Case("routed on to a pod", GIVEN, tcp(CLIENT, 40000, "10.244.1.5", 8080)),
    Case("SCTP to a service's port", GIVEN, V4 / SCTP(sport=40000, dport=80)),
    Case("GRE", GIVEN, ends(CLIENT, NODE[4]) / Raw(bytes(40))),
    Case("an unknown protocol", GIVEN, LINK / IP(src=CLIENT, dst=VIP, proto=253) / TEXT),
    Case("an unknown next header", GIVEN, LINK / IPv6(src=CLIENT6, dst=VIP6, nh=253) / TEXT),
    Case("no next header", GIVEN, LINK / IPv6(src=CLIENT6, dst=VIP6, nh=59)),
    Case(
        "IP options, no service", GIVEN,
        LINK / IP(src=CLIENT, dst=NODE[4], options=[IPOption_Router_Alert()]) / SEGMENT,
    ),
    Case("hop-by-hop options", GIVEN, ends(CLIENT6, NODE[6]) / IPv6ExtHdrHopByHop() / SEGMENT),
    Case("destination options", GIVEN, ends(CLIENT6, NODE[6]) / IPv6ExtHdrDestOpt() / SEGMENT),
    Case("routing header", GIVEN, ends(CLIENT6, NODE[6]) / IPv6ExtHdrRouting() / SEGMENT),
    Case("a VLAN's", GIVEN, LINK / Dot1Q(vlan=7) / IP(src=CLIENT, dst=NODE[4]) / SEGMENT),
    Case("a VLAN's, IPv6", GIVEN, LINK / Dot1Q(vlan=7) / IPv6(src=CLIENT6, dst=NODE[6]) / SEGMENT),
    Case(
        "a VLAN's, to a service", GIVEN,
        LINK / Dot1Q(vlan=7) / IP(src=CLIENT, dst=VIP) / SEGMENT,
    ),
    Case(
        "two tags, to a service", GIVEN,
        LINK / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IPv6(src=CLIENT6, dst=VIP6) / SEGMENT,
    ),
    Case("IP in IP", GIVEN, ends(CLIENT, NODE[4]) / IP(src=CLIENT, dst=VIP) / SEGMENT),
    Case("IP version 5", GIVEN, LINK / IP(version=5, src=CLIENT, dst=VIP) / SEGMENT),
    Case("a header length of 4 words", GIVEN, LINK / IP(ihl=4, src=CLIENT, dst=VIP) / SEGMENT),
    *OTHERS,
    Case("multicast", GIVEN, udp(CLIENT, 5353, "224.0.0.251", 5353)),
    Case("broadcast", GIVEN, udp("0.0.0.0", 68, "255.255.255.255", 67)),
)  # fmt: skip


def _fragments() -> list[Packet]:
    whole = ends(CLIENT, NODE[4]) / UDP(sport=40000, dport=53) / Raw(bytes(3000))
    header = IPv6(src=CLIENT6, dst=NODE[6])
    last = LINK / header / IPv6ExtHdrFragment(offset=175, id=7, nh=17) / Raw(bytes(600))
    first = LINK / header / IPv6ExtHdrFragment(m=1, id=7, nh=17) / UDP(dport=53) / Raw(bytes(600))
    return [*fragment(whole, 1400), first, last]


@pytest.mark.parametrize(
    ("case", "program"),
    [
        pytest.param(case, program, id=f"{case.name}-{program}")
        for case in ROWS
        for program in ("lb_in", "lb_out", "pod_in", "lb_xdp")
        # To a port of a bridge all packets look like another's, also those for this node.
        if not (program == "pod_in" and case in OTHERS)
    ],
)
def test_passes_unchanged(bench: Bench, case: Case, program: str) -> None:
    """Nothing of the host's own traffic is touched, in either direction."""
    play(bench, case._replace(program=program))


@pytest.mark.parametrize("program", ["lb_in", "lb_out", "pod_in", "lb_xdp"])
@pytest.mark.parametrize("number", range(5))
def test_fragments_pass_unchanged(bench: Bench, number: int, program: str) -> None:
    """First, middle and last fragments that are no service's."""
    play(bench, Case("fragment", GIVEN, _fragments()[number], program=program))
