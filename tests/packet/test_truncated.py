"""Frames that end too early: unchanged, or dropped with a reason; never anything else."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, judged, play
from tests.packet.given import Given
from tests.packet.net import V4, V6, Net, offered
from tests.packet.packets import Make, answer, network, tcp, transport, udp


def headers(packet: Packet) -> int:
    """Bytes of Ethernet, IP and TCP or UDP header."""
    return len(packet) - len(packet.lastlayer().load)


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_headers_cut_short(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """At every length of every header, forth and back, of a flow that is there and of a new one.

    But for the IP header's first 20 or 40 bytes at tc: kernels of today run no such test on less.
    """
    service = offered(net, l4, net.here if local else net.there)
    assert_cut_short(bench, service, net, l4)


def test_headers_cut_short_of_what_is_wrapped(bench: Bench, net: Net, l4: Make) -> None:
    """The same where the backend answers the client itself."""
    assert_cut_short(bench, offered(net, l4, net.there, forwarding=Way.DSR), net, l4)


def assert_cut_short(bench: Bench, service: Given, net: Net, l4: Make) -> None:
    """At every length of every header."""
    bench.give(service)
    sent = l4(net.client, 40000, net.vip, 80)
    got = Ether(bench.run("lb_in", bytes(sent)).packet)
    back = answer(got.getlayer(type(network(got)), 2) or got)
    fresh = l4(net.neighbour, 40000, net.vip, 80)
    for packet in (sent, back, fresh):
        for program in ("lb_xdp", "lb_in", "lb_out", "pod_in"):
            shortest = 34 if net is V4 else 54
            for length in range(14 if program == "lb_xdp" else shortest, headers(packet)):
                frame = bytes(packet)[:length]
                before = sum(bench.counted().values())
                ran = bench.run(program, frame)
                dropped = sum(bench.counted().values()) - before
                assert ran.packet == frame, f"{length} bytes, {program}"
                verdict = judged(program, ran.verdict)
                assert (verdict, dropped) in ((Verdict.PASS, 0), (Verdict.DROP, 1))


def test_whole_headers_are_enough(bench: Bench, net: Net, l4: Make) -> None:
    """A packet of headers alone is translated."""
    bench.give(offered(net, l4, net.here))
    packet = l4(net.client, 40000, net.vip, 80)
    transport(packet).remove_payload()
    frame = bytes(packet)
    ran = bench.run("lb_in", frame)
    assert ran.verdict == Verdict.PASS
    assert ran.packet != frame


def test_a_data_offset_beyond_the_end(bench: Bench, net: Net) -> None:
    """TCP options that the packet does not have: passed on or dropped, and no program fails."""
    bench.give(offered(net, tcp, net.here))
    for words in range(16):
        packet = tcp(net.client, 40000, net.vip, 80)
        packet["TCP"].dataofs = words
        frame = bytes(packet)[: headers(packet)]
        assert bench.run("lb_in", frame).verdict in (Verdict.PASS, Verdict.DROP)


@pytest.mark.parametrize("claimed", [0, 20, 21, 24, 27])
def test_a_length_that_leaves_no_room_for_ports(bench: Bench, claimed: int) -> None:
    """What lies behind the end that the IP header names is padding, and no header."""
    bench.give(offered(V4, udp, V4.here))
    packet = udp(V4.client, 40000, V4.vip, 80)
    packet["IP"].len = claimed
    play(bench, Case("padding", None, packet))


@pytest.mark.parametrize("claimed", [0, 1, 4, 7])
def test_a_length_that_leaves_no_room_for_ports_ipv6(bench: Bench, claimed: int) -> None:
    """The same of the payload's length."""
    bench.give(offered(V6, udp, V6.here))
    packet = udp(V6.client, 40000, V6.vip, 80)
    packet["IPv6"].plen = claimed
    play(bench, Case("padding", None, packet))
