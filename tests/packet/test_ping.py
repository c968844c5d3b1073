"""Pings of a service's address: answered by this node while a backend is usable, else dropped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.layout import Reason
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import V4, V6, Net, offered
from tests.packet.packets import ends, network, tcp
from tests.packet.sums import wrong


def ping(source: str, destination: str, data: bytes = b"hello", hops: int = 64) -> Packet:
    """An echo request with right checksums."""
    if ":" in source:
        layer = ICMPv6EchoRequest(id=77, seq=3, data=data)
    else:
        layer = ICMP(id=77, seq=3) / data
    return Ether(bytes(ends(source, destination, hops) / layer))


@pytest.mark.parametrize("kind", ["load balancer", "external", "cluster"])
@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
def test_answered(bench: Bench, net: Net, kind: str, *, local: bool) -> None:
    """By the address itself, with what was sent."""
    bench.give(offered(net, tcp, net.here if local else net.there, kind=kind))
    sent = ping(net.client, net.vip, hops=1)
    ran = bench.run("lb_in", bytes(sent))
    assert ran.verdict == Verdict.SEND
    assert wrong(ran.packet) == []
    there = network(Ether(ran.packet))
    assert (there.src, there.dst) == (net.vip, net.client)
    before, after = bytes(network(sent).payload), bytes(there.payload)
    assert after[:2] == (b"\x81\0" if net is V6 else b"\0\0")
    assert after[4:] == before[4:]


@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=1400))
def test_checksums(bench: Bench, net: Net, data: bytes) -> None:
    """Of any length and contents."""
    bench.give(offered(net, tcp, net.there))
    assert wrong(bench.run("lb_in", bytes(ping(net.client, net.vip, data))).packet) == []


def test_silence_without_a_backend(bench: Bench, net: Net) -> None:
    """Dropped and counted, and not sent round and round by the stack."""
    case = Case("ping", (offered(net, tcp),), ping(net.client, net.vip), Verdict.DROP, None,
                {Reason.NO_BACKEND: 1})  # fmt: skip
    play(bench, case)


def test_silence_without_a_backend_here(bench: Bench, net: Net) -> None:
    """Under the Local policy only a backend of this node counts, as it does for others."""
    bench.give(offered(net, tcp, net.there, local=True))
    assert bench.run("lb_in", bytes(ping(net.client, net.vip))).verdict == Verdict.DROP
    bench.change(offered(net, tcp, net.there, net.here, local=True))
    assert bench.run("lb_in", bytes(ping(net.client, net.vip))).verdict == Verdict.SEND


@pytest.mark.parametrize("kind", ["load balancer", "node port"])
def test_others_are_left_alone(bench: Bench, net: Net, kind: str) -> None:
    """The node's own addresses are its stack's, and so are all that are no service's."""
    bench.give(offered(net, tcp, net.there, kind=kind))
    for address in (net.node, net.nowhere, net.remote[0]):
        play(bench, Case(address, None, ping(net.client, address)))


@pytest.mark.parametrize("source", ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0"])
def test_a_source_that_is_no_host_gets_no_answer(bench: Bench, source: str) -> None:
    """RFC 1122, 3.2.2.6: the answer would go to many, or to nobody."""
    bench.give(offered(V4, tcp, V4.there))
    assert bench.run("lb_in", bytes(ping(source, V4.vip))).verdict == Verdict.DROP


def test_cut_short(bench: Bench, net: Net) -> None:
    """At every length: unchanged."""
    bench.give(offered(net, tcp, net.there))
    whole = bytes(ping(net.client, net.vip))
    for length in range(34 if net is V4 else 54, len(whole)):
        assert bench.run("lb_in", whole[:length]).packet == whole[:length]
