"""ICMP errors about packets of a flow reach whoever sent the packet, quoting what that one sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.layout import Reason
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.errors import error
from tests.packet.net import BACKEND, V4, V6, Net, offered
from tests.packet.packets import Make, answer, network, tcp, udp
from tests.packet.sums import LINK, wrong

MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROUTER = {V4: "10.9.9.9", V6: "fd00:9::9"}
TOO_BIG = {V4: (3, 4), V6: (2, 0)}
KINDS = {
    V4: [(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0)],
    V6: [(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)],
}
FEWEST = {V4: 28, V6: 48}
"""Octets of the shortest quote: the IP header and 8 octets."""


class Flow(NamedTuple):
    """Packets of one flow as each side sends and gets them."""

    sent: bytes
    """By the client."""
    forwarded: bytes
    """To the backend."""
    answered: bytes
    """By the backend."""
    returned: bytes
    """To the client."""


def begin(bench: Bench, net: Net, l4: Make, *, local: bool, hops: int = 64) -> Flow:
    """A flow and a packet of it each way."""
    bench.give(offered(net, l4, net.here if local else net.there))
    sent = bytes(l4(net.client, 40000, net.vip, 80, hops=hops))
    forwarded = bench.run("lb_in", sent).packet
    answered = bytes(answer(Ether(forwarded)))
    returned = bench.run("lb_out" if local else "lb_in", answered).packet
    assert forwarded != sent
    assert returned != answered
    return Flow(sent, forwarded, answered, returned)


def run(bench: Bench, program: str, sent: Packet, verdict: Verdict) -> bytes:
    """What becomes of it; with right checksums, uncounted."""
    before = bench.counted()
    ran = bench.run(program, bytes(sent))
    assert ran.verdict == verdict
    assert bench.counted() == before
    assert wrong(ran.packet) == []
    return ran.packet


def quote_of(net: Net, frame: bytes) -> bytes:
    """What an error quotes."""
    return frame[LINK + FEWEST[net] :]


def without_hops(net: Net, ip: bytes) -> bytes:
    """The IP packet but for what every hop changes."""
    if net is V4:
        return ip[:8] + bytes(1) + ip[9:10] + bytes(2) + ip[12:]
    return ip[:7] + bytes(1) + ip[8:]


def check(net: Net, got: bytes, about: bytes, quoted: int, ways: tuple[str, str]) -> None:
    """From and to these addresses, quoting so much of `about`, as its sender sent it."""
    there = network(Ether(got))
    assert (there.src, there.dst) == ways
    wanted = about[LINK : LINK + quoted]
    assert without_hops(net, quote_of(net, got)) == without_hops(net, wanted)


# But for 9: half a TCP checksum tells nobody anything, and is left as it is.
LENGTHS = pytest.mark.parametrize("extra", [0, 1, 4, 8, 10, 11, 30], ids=str)


@LENGTHS
def test_from_beyond_to_the_client(bench: Bench, net: Net, l4: Make, extra: int) -> None:
    """A router on the way to another node: its error comes to the client as the service's."""
    flow = begin(bench, net, l4, local=False)
    quoted = FEWEST[net] + extra
    for words in KINDS[net]:
        sent = error(flow.forwarded, ROUTER[net], net.node, words, quoted=quoted, mtu=1300)
        got = run(bench, "lb_in", sent, Verdict.SEND)
        assert got[LINK + FEWEST[net] - 8 :][:2] == bytes(words)
        assert got[LINK + FEWEST[net] - 4 :][:4] == (1300).to_bytes(4, "big")
        check(net, got, flow.sent, quoted, (net.vip, net.client))


@LENGTHS
@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_from_the_clients_side_to_the_backend(
    bench: Bench, net: Net, l4: Make, extra: int, *, local: bool
) -> None:
    """A router near the client, or the client: the backend gets it, by whose answer it came."""
    flow = begin(bench, net, l4, local=local)
    quoted = FEWEST[net] + extra
    for source in (ROUTER[net], net.client):
        sent = error(flow.returned, source, net.vip, TOO_BIG[net], quoted=quoted, mtu=1300)
        got = run(bench, "lb_in", sent, Verdict.PASS if local else Verdict.SEND)
        backend = (net.local if local else net.remote)[0]
        check(net, got, flow.answered, quoted, (source if local else net.node, backend))


@LENGTHS
def test_from_a_backend_of_this_node(bench: Bench, net: Net, l4: Make, extra: int) -> None:
    """The pod's own errors, and this node's about it, come to the client as the service's."""
    flow = begin(bench, net, l4, local=True)
    quoted = FEWEST[net] + extra
    for source in (net.local[0], net.node):
        for words in KINDS[net]:
            sent = error(flow.forwarded, source, net.client, words, quoted=quoted)
            got = run(bench, "lb_out", sent, Verdict.PASS)
            check(net, got, flow.sent, quoted, (net.vip, net.client))


def test_at_a_node_port(bench: Bench, net: Net, l4: Make) -> None:
    """The service's address is the node's own: still the client gets it, not the node."""
    bench.give(offered(net, l4, net.there, kind="node port"))
    sent = bytes(l4(net.client, 40000, net.node, 80))
    forwarded = bench.run("lb_in", sent).packet
    got = run(bench, "lb_in", error(forwarded, ROUTER[net], net.node, TOO_BIG[net]), Verdict.SEND)
    check(net, got, sent, len(sent) - LINK, (net.node, net.client))


def _strange(net: Net, l4: Make, flow: Flow) -> list[tuple[str, Packet]]:
    """Errors that are none of ours, by what is strange."""
    router, node = ROUTER[net], net.node
    mine = bytes(l4(node, 50000, net.remote[0], BACKEND))
    pod = bytes(l4(net.local[0], 50000, net.client, 80))
    asked = (8, 0) if net is V4 else (128, 0)
    unknown = (3, 4) if net is V6 else (40, 0)
    return [
        ("about the node's own connection", error(mine, router, node, TOO_BIG[net])),
        ("about a pod's own connection", error(pod, router, net.local[0], TOO_BIG[net])),
        ("a quote of too little", error(flow.forwarded, router, node, TOO_BIG[net], quoted=27)),
        ("no quote", error(b"", router, node, TOO_BIG[net])),
        ("a quote of other text", error(bytes(80), router, node, TOO_BIG[net])),
        ("a question", error(flow.forwarded, router, node, asked)),
        ("unknown", error(mine, router, node, unknown)),
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("program", ["lb_in", "lb_out"])
def test_what_is_none_of_ours(bench: Bench, net: Net, l4: Make, number: int, program: str) -> None:
    """The node's own errors are left to its stack, not one byte changed."""
    flow = begin(bench, net, l4, local=False)
    name, sent = _strange(net, l4, flow)[number]
    play(bench, Case(name, None, sent, program=program))


def test_the_last_hop_of_an_error(bench: Bench, net: Net, l4: Make) -> None:
    """It is dropped, and no error goes out about an error."""
    flow = begin(bench, net, l4, local=False)
    sent = error(flow.forwarded, ROUTER[net], net.node, TOO_BIG[net], hops=1)
    before = bench.counted().get(Reason.HOP_LIMIT, 0)
    assert bench.run("lb_in", bytes(sent)).verdict == Verdict.DROP
    assert bench.counted()[Reason.HOP_LIMIT] == before + 1


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_padding_is_no_checksum(bench: Bench, l4: Make, *, local: bool) -> None:
    """Behind a quote of 8 octets of TCP lies padding, of which nothing is changed."""
    flow = begin(bench, V4, l4, local=local)
    sent = error(flow.returned, V4.client, V4.vip, (3, 3), quoted=28)
    padded = bytes(sent) + b"\xa5" * 18
    got = bench.run("lb_in", padded)
    assert got.packet != padded
    assert got.packet[-18:] == b"\xa5" * 18


def test_udp_without_a_checksum_stays_without(bench: Bench) -> None:
    """Also where it is quoted."""
    bench.give(offered(V4, udp, V4.there))
    packet = udp(V4.client, 40000, V4.vip, 80)
    packet[UDP].chksum = 0
    forwarded = bench.run("lb_in", bytes(packet)).packet
    sent = error(forwarded, ROUTER[V4], V4.node, TOO_BIG[V4])
    check(V4, run(bench, "lb_in", sent, Verdict.SEND), bytes(packet), 63, (V4.vip, V4.client))


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_cut_short(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """At every length: unchanged, or dropped with a reason, or translated in full."""
    flow = begin(bench, net, l4, local=local)
    whole = error(flow.returned, net.client, net.vip, TOO_BIG[net])
    for length in range(34 if net is V4 else 54, len(whole)):
        frame = bytes(whole)[:length]
        before = sum(bench.counted().values())
        ran = bench.run("lb_in", frame)
        dropped = sum(bench.counted().values()) - before
        assert ran.packet == frame
        assert (ran.verdict, dropped) in ((Verdict.PASS, 0), (Verdict.DROP, 1))


Mutate = Callable[[bytes], bytes]


@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("l4", [tcp, udp], ids=["TCP", "UDP"])
@MANY
@given(
    flips=st.lists(st.integers(0, 8 * 120 - 1), min_size=1, max_size=3),
    quoted=st.integers(28, 120),
    local=st.booleans(),
)
def test_mutated_errors(  # noqa: PLR0917 - fixtures and what hypothesis makes
    bench: Bench,
    net: Net,
    l4: Make,
    flips: list[int],
    quoted: int,
    local: bool,  # noqa: FBT001
) -> None:
    """Bits flipped in the quote: never a crash; lengths stay; right ICMP sums stay right."""
    flow = begin(bench, net, l4, local=local)
    about = bytearray(flow.returned)
    for bit in flips:
        about[LINK + bit // 8 % (len(about) - LINK)] ^= 1 << bit % 8
    sent = error(bytes(about), net.client, net.vip, TOO_BIG[net], quoted=quoted)
    ran = bench.run("lb_in", bytes(sent))
    assert len(ran.packet) == len(sent)
    assert set(wrong(ran.packet)) <= set(wrong(bytes(sent)))
    if ran.packet == bytes(sent):
        assert ran.verdict == Verdict.PASS


def test_an_error_begins_no_flow(bench: Bench, net: Net, l4: Make) -> None:
    """Nor is it a packet of one."""
    flow = begin(bench, net, l4, local=False)
    before = [one.packets for one in bench.flows()]
    bench.run("lb_in", bytes(error(flow.forwarded, ROUTER[net], net.node, TOO_BIG[net])))
    assert [one.packets for one in bench.flows()] == before
