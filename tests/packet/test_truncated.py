"""Frames that end too early: unchanged, or dropped with a reason; never anything else."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.packet.bench import Bench
from tests.packet.case import Verdict
from tests.packet.net import Net, offered
from tests.packet.packets import Make, answer, tcp

SHORTEST = 15  # a test run takes no frame without anything behind its Ethernet header


def headers(packet: Packet) -> int:
    """Bytes of Ethernet, IP and TCP or UDP header."""
    return len(packet) - len(packet.lastlayer().load)


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_headers_cut_short(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """At every length of every header, forth and back, of a flow that is there and of a new one."""
    service = offered(net, l4, net.here if local else net.there)
    bench.give(service)
    sent = l4(net.client, 40000, net.vip, 80)
    back = answer(Ether(bench.run("lb_in", bytes(sent)).packet))
    fresh = l4(net.neighbour, 40000, net.vip, 80)
    for packet in (sent, back, fresh):
        for length in range(SHORTEST, headers(packet)):
            frame = bytes(packet)[:length]
            for program in ("lb_in", "lb_out"):
                before = sum(bench.counted().values())
                ran = bench.run(program, frame)
                dropped = sum(bench.counted().values()) - before
                assert ran.packet == frame, f"{length} bytes, {program}"
                assert (ran.verdict, dropped) in ((Verdict.PASS, 0), (Verdict.DROP, 1))


def test_whole_headers_are_enough(bench: Bench, net: Net, l4: Make) -> None:
    """The same packet, with all of its headers and nothing behind them, is translated."""
    bench.give(offered(net, l4, net.here))
    packet = l4(net.client, 40000, net.vip, 80)
    frame = bytes(packet)[: headers(packet)]
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
