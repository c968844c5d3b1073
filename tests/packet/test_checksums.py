"""Every checksum of a rewritten packet is what scapy makes of it from scratch."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lb.address import parse
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Verdict
from tests.packet.net import V4, V6, Net, offered
from tests.packet.packets import Make, answer, ends, has_right_checksums, network, tcp, udp
from tests.packet.sums import total

BOTH = pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
XDP_PASS, XDP_REDIRECT = 2, 4
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def begin(bench: Bench, net: Net, l4: Make, *, local: bool) -> tuple[Packet, Packet]:
    """A flow of the client's port 40000: its first packet forth, as it was sent and came out."""
    bench.give(offered(net, l4, net.here if local else net.there))
    sent = l4(net.client, 40000, net.vip, 80)
    got = bench.run("lb_in", bytes(sent))
    assert got.packet != bytes(sent)
    return sent, Ether(got.packet)


def with_payload(packet: Packet, payload: bytes) -> Packet:
    """The packet with other contents, and lengths and checksums to fit."""
    there = network(packet)
    layer = packet[TCP] if TCP in packet else packet[UDP]
    fresh = ends(there.src, there.dst) / type(layer)(sport=layer.sport, dport=layer.dport)
    return fresh / Raw(payload)


@BOTH
@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("l4", [tcp, udp], ids=["TCP", "UDP"])
@MANY
@given(payload=st.binary(max_size=1200), hops=st.integers(2, 255), tos=st.integers(0, 255))
def test_of_any_payload(  # noqa: PLR0917 - fixtures and what hypothesis makes
    bench: Bench, net: Net, l4: Make, payload: bytes, hops: int, tos: int, *, local: bool
) -> None:
    """Both ways, odd and even lengths, any hop limit and service class."""
    sent, first = begin(bench, net, l4, local=local)
    for original, program in ((sent, "lb_in"), (answer(first), "lb_out" if local else "lb_in")):
        packet = with_payload(original, payload)
        if net is V4:
            packet["IP"].ttl, packet["IP"].tos = hops, tos
        else:
            packet["IPv6"].hlim, packet["IPv6"].tc = hops, tos
        ran = bench.run(program, bytes(packet))
        assert ran.verdict == (Verdict.PASS if local else Verdict.SEND)
        assert ran.packet != bytes(packet)
        assert has_right_checksums(ran.packet)


@BOTH
def test_udp_without_a_checksum_stays_without(bench: Bench, *, local: bool) -> None:
    """Zero says that the sender made none (RFC 768); so it stays, both ways."""
    sent, first = begin(bench, V4, udp, local=local)
    for original, program in ((sent, "lb_in"), (answer(first), "lb_out" if local else "lb_in")):
        packet = Ether(bytes(original))
        packet[UDP].chksum = 0
        got = bench.run(program, bytes(packet)).packet
        assert got != bytes(packet)
        assert Ether(got)[UDP].chksum == 0
        assert has_right_checksums(got)


@BOTH
def test_a_udp_checksum_never_becomes_zero(bench: Bench, net: Net, *, local: bool) -> None:
    """Where the sum comes out as 0 it is sent as all ones (RFC 768, RFC 8200, 8.1)."""
    sent, first = begin(bench, net, udp, local=local)
    ways = (
        (sent, first, "lb_in"),
        (answer(first), answer(sent), "lb_out" if local else "lb_in"),
    )
    for before, after, program in ways:
        plain = bytes(with_payload(after, bytes(2)))
        word = Ether(plain)[UDP].chksum.to_bytes(2, "big")
        packet = bytes(with_payload(before, word))
        got = Ether(bench.run(program, packet).packet)
        assert bytes(got) != packet
        assert got[UDP].chksum == 0xFFFF


@BOTH
def test_a_wrong_checksum_stays_wrong(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """A broken packet is not made whole on its way: the receiver is to see it."""
    sent, _ = begin(bench, net, l4, local=local)
    packet = Ether(bytes(sent))
    layer = packet[TCP] if TCP in packet else packet[UDP]
    layer.chksum ^= 0x0100
    got = bench.run("lb_in", bytes(packet)).packet
    assert got != bytes(packet)
    assert not has_right_checksums(got)


def unfinished(packet: Packet) -> bytes:
    """As a virtual machine hands it over: the sum of the pseudo header alone, no complement."""
    made = Ether(bytes(packet))
    layer = made[TCP] if TCP in made else made[UDP]
    there = network(made)
    protocol = 6 if TCP in made else 17
    pseudo = parse(there.src) + parse(there.dst) + struct.pack("!II", len(layer), protocol)
    layer.chksum = total(pseudo)
    return bytes(made)


@pytest.mark.parametrize("way", [Way.SNAT, Way.DSR])
def test_xdp_hands_up_what_is_unfinished(bench: Bench, net: Net, l4: Make, way: Way) -> None:
    """On a device that may bring such, forth and back; what has its checksum is sent on."""
    bench.give(offered(net, l4, net.there, forwarding=way))
    sent = l4(net.client, 40000, net.vip, 80)
    network(sent).flags = "DF" if net is V4 else 0
    first = Ether(bench.run("lb_in", bytes(sent)).packet)
    packets = [sent] if way is Way.DSR else [sent, answer(first)]
    for packet in packets:
        assert bench.run("lb_xdp", bytes(packet)).verdict == XDP_REDIRECT
        frame = unfinished(packet)
        ran = bench.run("lb_xdp", frame)
        assert (ran.verdict, ran.packet) == (XDP_PASS, frame)
        with bench.on_a_wire():
            assert bench.run("lb_xdp", frame).verdict == XDP_REDIRECT
