"""Fragments of a service's packets follow their first; and what lies behind IPv6 extensions."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.layout import Reason
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import BACKEND, V4, V6, Net, offered
from tests.packet.packets import Make, answer, ends, network, tcp, udp
from tests.packet.sums import wrong

LINK = Ether(dst="02:00:00:00:00:01")
"""With an address: scapy would ask the network for one."""

PAYLOAD = bytes(range(256)) * 16
BOTH = pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])


def long(packet: Packet) -> Packet:
    """The same ends with 4,096 octets of payload."""
    there = network(packet)
    layer = packet[TCP] if TCP in packet else packet[UDP]
    made = ends(there.src, there.dst) / type(layer)(sport=layer.sport, dport=layer.dport)
    return Ether(bytes(made / Raw(PAYLOAD)))


def cut(packet: Packet, number: int = 7) -> list[Packet]:
    """Its fragments, none longer than 1,400 octets."""
    if IPv6 in packet:
        link, whole = Ether(src=packet.src, dst=packet.dst), packet[IPv6]
        upper = whole.payload
        header = IPv6(src=whole.src, dst=whole.dst, hlim=whole.hlim)
        framed = header / IPv6ExtHdrFragment(id=number) / upper
        return [Ether(bytes(link / one)) for one in fragment6(framed, 1400)]
    packet[IP].id = number
    del packet[IP].chksum
    return [Ether(bytes(one)) for one in fragment(packet, 1360)]


def joined(frames: list[bytes]) -> Packet:
    """The packet of these fragments, as its receiver puts it together."""
    packets = [Ether(one) for one in frames]
    if IPv6 in packets[0]:
        return Ether(bytes(LINK / defragment6([one[IPv6] for one in packets])))
    pieces = sorted((one[IP] for one in packets), key=lambda one: int(one.frag))
    (whole,) = defragment(pieces)  # scapy wants them in order
    return Ether(bytes(LINK / whole))


def carried(bench: Bench, program: str, pieces: list[Packet], verdict: Verdict) -> list[bytes]:
    """What becomes of each; all of them get by."""
    ran = bench.run_all(program, [bytes(one) for one in pieces])
    assert {one.verdict for one in ran} == {verdict}
    return [one.packet for one in ran]


def check(frames: list[bytes], wanted: Packet) -> None:
    """Put together they are that packet, its checksum from scratch included."""
    whole = joined(frames)
    assert wrong(bytes(whole)) == []
    assert all(wrong(one) == [] for one in frames if Ether(one).type == 0x800)
    there, same = network(whole), network(wanted)
    assert (there.src, there.dst) == (same.src, same.dst)
    layer = whole[TCP] if TCP in whole else whole[UDP]
    other = wanted[TCP] if TCP in wanted else wanted[UDP]
    assert (layer.sport, layer.dport) == (other.sport, other.dport)
    assert bytes(layer.payload) == PAYLOAD


@BOTH
def test_both_ways(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """A long packet is whole again at the backend, and the answer at the client."""
    bench.give(offered(net, l4, net.here if local else net.there))
    pieces = cut(long(l4(net.client, 40000, net.vip, 80)))
    assert len(pieces) == 4
    verdict = Verdict.PASS if local else Verdict.SEND
    forth = carried(bench, "lb_in", pieces, verdict)
    backend = (net.local if local else net.remote)[0]
    source = (
        (net.client, 40000) if local else (net.node, joined(forth).lastlayer().underlayer.sport)
    )
    check(forth, l4(*source, backend, BACKEND))
    back = cut(long(l4(backend, BACKEND, *source)), 8)
    returned = carried(bench, "lb_out" if local else "lb_in", back, verdict)
    check(returned, l4(net.vip, 80, net.client, 40000))
    if not local:
        hops = {network(Ether(one)).fields.get("ttl", 63) for one in [*forth, *returned]}
        assert hops == {63}


@BOTH
def test_in_any_order_after_the_first(bench: Bench, net: Net, *, local: bool) -> None:
    """The network may mix up what comes after."""
    bench.give(offered(net, udp, net.here if local else net.there))
    first, *others = cut(long(udp(net.client, 40000, net.vip, 80)))
    frames = carried(
        bench, "lb_in", [first, *reversed(others)], Verdict.PASS if local else Verdict.SEND
    )
    assert len(bytes(joined(frames)[UDP].payload)) == len(PAYLOAD)


def test_later_ones_before_their_first(bench: Bench, net: Net, l4: Make) -> None:
    """At a service's address they are dropped and counted; others' pass."""
    bench.give(offered(net, l4, net.there))
    first, second, *_ = cut(long(l4(net.client, 40000, net.vip, 80)))
    case = Case("early", None, second, Verdict.DROP, None, {Reason.FRAGMENT: 1})
    play(bench, case)
    carried(bench, "lb_in", [first, second], Verdict.SEND)
    for program in ("lb_in", "lb_out"):
        play(bench, Case("host", None, cut(long(udp(net.client, 1, net.node, 2)))[1],
                         program=program))  # fmt: skip


@pytest.mark.parametrize("what", ["id", "source", "protocol"])
def test_another_packets_first(bench: Bench, net: Net, what: str) -> None:
    """Fragments go together by source, destination, id and protocol."""
    bench.give(offered(net, udp, net.there))
    first = cut(long(udp(net.client, 40000, net.vip, 80)))[0]
    carried(bench, "lb_in", [first], Verdict.SEND)
    make = tcp if what == "protocol" else udp
    source = net.neighbour if what == "source" else net.client
    other = cut(long(make(source, 40000, net.vip, 80)), 9 if what == "id" else 7)[1]
    play(bench, Case(what, None, other, Verdict.DROP, None, {Reason.FRAGMENT: 1}))


def test_nobody_serves(bench: Bench, net: Net, l4: Make) -> None:
    """The first is answered, and the others are dropped in silence, for the same reason."""
    bench.give(offered(net, l4))
    first, *others = cut(long(l4(net.client, 40000, net.vip, 80)))
    ran = bench.run("lb_in", bytes(first))
    assert ran.verdict == Verdict.SEND
    assert wrong(ran.packet) == []
    assert network(Ether(ran.packet)).src == net.vip
    for one in others:
        play(bench, Case("later", None, one, Verdict.DROP, None, {Reason.NO_BACKEND: 1}))


def test_the_last_hop(bench: Bench, net: Net, l4: Make) -> None:
    """Time exceeded for the first; silence for a later one (RFC 1122, 3.2.2)."""
    bench.give(offered(net, l4, net.there))
    pieces = cut(long(l4(net.client, 40000, net.vip, 80, hops=64)))
    carried(bench, "lb_in", pieces, Verdict.SEND)
    last = []
    for one in pieces:
        if net is V4:
            one[IP].ttl = 1
            del one[IP].chksum
        else:
            one[IPv6].hlim = 1
        last.append(bench.run("lb_in", bytes(one)).verdict)
    assert last == [Verdict.SEND, Verdict.DROP, Verdict.DROP, Verdict.DROP]


@BOTH
def test_tiny_firsts(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """A first fragment without a whole L4 header is left alone (RFC 1858, RFC 7112)."""
    bench.give(offered(net, l4, net.here if local else net.there))
    whole = l4(net.client, 40000, net.vip, 80)
    size = 8 if l4 is tcp else 4
    head = bytes(whole.lastlayer().underlayer)[:size]
    if net is V4:
        piece = Ether(src=whole.src, dst=whole.dst) / IP(
            src=net.client, dst=net.vip, flags="MF", proto=6 if l4 is tcp else 17
        )
    else:
        piece = (
            Ether(src=whole.src, dst=whole.dst)
            / IPv6(src=net.client, dst=net.vip)
            / IPv6ExtHdrFragment(m=1, id=7, nh=6 if l4 is tcp else 17)
        )
    play(bench, Case("tiny", None, piece / Raw(head)))


def headed(l4: Make, *headers: Packet) -> Packet:
    """A packet from the client with extension headers."""
    plain = l4(V6.client, 40000, V6.vip, 80)
    upper = plain.lastlayer().underlayer
    packet = Ether(src=plain.src, dst=plain.dst) / IPv6(src=V6.client, dst=V6.vip)
    for one in headers:
        packet /= one
    return packet / upper


EXTENSIONS = {
    "hop by hop": (IPv6ExtHdrHopByHop(),),
    "destination": (IPv6ExtHdrDestOpt(),),
    "both": (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()),
    "a fragment that is whole": (IPv6ExtHdrFragment(id=7),),
    "three": (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=7)),
}


@BOTH
@pytest.mark.parametrize("headers", EXTENSIONS.values(), ids=EXTENSIONS)
def test_extension_headers(
    bench: Bench, l4: Make, headers: tuple[Packet, ...], *, local: bool
) -> None:
    """They are stepped over, and stay."""
    bench.give(offered(V6, l4, V6.here if local else V6.there))
    sent = headed(l4, *headers)
    ran = bench.run("lb_in", bytes(sent))
    assert ran.verdict == (Verdict.PASS if local else Verdict.SEND)
    got = Ether(ran.packet)
    assert got[IPv6].dst == (V6.local if local else V6.remote)[0]
    layer = got[TCP] if l4 is tcp else got[UDP]
    assert layer.dport == BACKEND
    assert len(ran.packet) == len(sent)
    if not any(isinstance(one, IPv6ExtHdrFragment) for one in headers):
        assert wrong(ran.packet) == []
    back = answer(got) if not local else headed(l4)
    assert bench.run("lb_in", bytes(back)).verdict == ran.verdict


@pytest.mark.parametrize(
    "headers",
    [(IPv6ExtHdrRouting(),), (IPv6ExtHdrDestOpt(),) * 5],
    ids=["a routing header", "too many"],
)
def test_other_extensions_pass(bench: Bench, l4: Make, headers: tuple[Packet, ...]) -> None:
    """Where the destination is not the last, or the end is too far, it is none of ours."""
    bench.give(offered(V6, l4, V6.there))
    play(bench, Case("extensions", None, headed(l4, *headers)))


def test_extensions_cut_short(bench: Bench, l4: Make) -> None:
    """At every length: unchanged."""
    bench.give(offered(V6, l4, V6.there))
    whole = bytes(headed(l4, IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()))
    for length in range(54, len(whole)):
        assert bench.run("lb_in", whole[:length]).packet == whole[:length]
