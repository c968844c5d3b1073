"""Packets of services with something broken in them: what comes out is still never wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from lb.address import parse
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Verdict, judged
from tests.packet.net import V4, V6, Net, offered
from tests.packet.packets import Make, answer, has_right_checksums, recomputed, tcp, udp
from tests.packet.sums import wrong

Mutation = Callable[[bytes], bytes]
LINK = 14
SHORTEST = {V4: LINK + 20, V6: LINK + 40}
MANY = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flip(bit: int) -> Mutation:
    """One bit behind the link's header."""

    def mutate(frame: bytes) -> bytes:
        at = LINK + bit // 8 % (len(frame) - LINK)
        return frame[:at] + bytes([frame[at] ^ 1 << bit % 8]) + frame[at + 1 :]

    return mutate


def cut(length: int) -> Mutation:
    """Only so many bytes."""
    return lambda frame: frame[:length]


def insert(at: int, what: bytes) -> Mutation:
    """Bytes in the middle."""
    return lambda frame: frame[: LINK + at] + what + frame[LINK + at :]


def set_byte(at: int, value: int) -> Mutation:
    """Another value in one place."""

    def mutate(frame: bytes) -> bytes:
        where = LINK + at % (len(frame) - LINK)
        return frame[:where] + bytes([value]) + frame[where + 1 :]

    return mutate


MUTATIONS = st.lists(
    st.one_of(
        st.builds(flip, st.integers(0, 511)),
        st.builds(cut, st.integers(SHORTEST[V4], 120)),
        st.builds(insert, st.integers(0, 60), st.binary(min_size=1, max_size=40)),
        st.builds(set_byte, st.integers(0, 60), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=3,
)


class Ends(NamedTuple):
    """What tells whose packet it is, read without any help of the code under test."""

    protocol: int
    source: bytes
    sport: bytes
    destination: bytes
    dport: bytes


def ends_of(frame: bytes) -> Ends | None:
    """The ends of a whole, unfragmented TCP or UDP packet; None: it is none."""
    kind, ip = frame[12:14], frame[LINK:]
    if kind == b"\x08\x00" and ip[0] >> 4 == 4 and ip[0] & 15 >= 5:
        start, protocol = (ip[0] & 15) * 4, ip[9]
        source, destination = ip[12:16], ip[16:20]
        if int.from_bytes(ip[6:8], "big") & 0x3FFF:
            return None
    elif kind == b"\x86\xdd" and ip[0] >> 4 == 6:
        start, protocol, source, destination = 40, ip[6], ip[8:24], ip[24:40]
    else:
        return None
    if len(ip) < start + {6: 20, 17: 8}.get(protocol, 1 << 16):
        return None
    ports = ip[start : start + 4]
    return Ends(protocol, source, ports[:2], destination, ports[2:])


def is_odd(frame: bytes) -> bool:
    """Is it a fragment, ICMP, or behind extension headers? Other tests are about those."""
    if frame[12:14] == b"\x08\x00":
        return frame[LINK + 9] == 1 or bool(int.from_bytes(frame[LINK + 6 : LINK + 8]) & 0x3FFF)
    return frame[12:14] == b"\x86\xdd" and frame[LINK + 6] in {0, 44, 58, 60}


def is_ours(sent: Ends, base: Ends, program: str, *, forth: bool) -> bool:
    """Is it for the frontend, or does it come back from the flow's backend?"""
    if sent.protocol != base.protocol:
        return False
    if forth:
        return (sent.destination, sent.dport) == (base.destination, base.dport)
    return sent == base and program != "pod_in"


def rewritable(frame: bytes, program: str) -> set[int]:
    """Where a rewritten packet may differ: hops, addresses, ports, checksums; MACs by XDP."""
    v4 = frame[12:14] == b"\x08\x00"
    start = LINK + (frame[LINK] & 15) * 4 if v4 else LINK + 40
    tcp_like = frame[LINK + 9] == 6 if v4 else frame[LINK + 6] == 6
    sums = start + (16 if tcp_like else 6)
    head = {22, 24, 25, *range(26, 34)} if v4 else {21, *range(22, 54)}
    link = set(range(12)) if program == "lb_xdp" else set()
    return link | head | set(range(start, start + 4)) | {sums, sums + 1}


def check(bench: Bench, frame: bytes, program: str, base: Ends, *, forth: bool) -> None:
    """Neither a stranger's packet nor a stranger's byte is changed, and good sums stay good."""
    before = sum(bench.counted().values())
    ran = bench.run(program, frame)
    counted = sum(bench.counted().values()) - before
    verdict = judged(program, ran.verdict)
    if counted and verdict == Verdict.SEND:  # a refusal
        assert set(wrong(ran.packet)) <= ({"the quoted IPv4"} if wrong(frame) else set())
        return
    assert counted == (verdict == Verdict.DROP)
    if is_odd(frame):
        assert len(ran.packet) == len(frame)
        return
    sent = ends_of(frame)
    ours = sent is not None and is_ours(sent, base, program, forth=forth)
    if not ours:
        assert ran.packet == frame
        assert verdict == Verdict.PASS
        return
    if verdict == Verdict.DROP:
        return
    assert len(ran.packet) == len(frame)
    differing = {
        at for at, pair in enumerate(zip(frame, ran.packet, strict=True)) if len({*pair}) > 1
    }
    assert differing <= rewritable(frame, program)
    if has_right_checksums(frame):
        assert has_right_checksums(ran.packet)


@pytest.mark.parametrize("place", ["local", "SNAT", "XDP"])
@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("l4", [tcp, udp], ids=["TCP", "UDP"])
@MANY
@given(mutations=MUTATIONS, mended=st.booleans(), forth=st.booleans())
def test_mutated_packets(  # noqa: PLR0917 - fixtures and what hypothesis makes
    bench: Bench,
    net: Net,
    l4: Make,
    mutations: list[Mutation],
    mended: bool,  # noqa: FBT001
    forth: bool,  # noqa: FBT001
    *,
    place: str,
) -> None:
    """Bit flips, cuts, insertions; with the checksums of before, or with right ones."""
    bench.give(offered(net, l4, net.here if place == "local" else net.there))
    packet = l4(net.client, 40000, net.vip, 80)
    got = Ether(bench.run("lb_in", bytes(packet)).packet)
    program = "lb_xdp" if place == "XDP" else "lb_in"
    if not forth:
        packet, program = answer(got), "lb_out" if place == "local" else program
    base = ends_of(bytes(packet))
    assert base is not None
    frame = bytes(packet)
    for mutate in mutations:
        frame = mutate(frame)
    frame = recomputed(frame) if mended else frame
    if len(frame) >= SHORTEST[net]:  # the kernel runs no test on less than an IP header
        check(bench, frame, program, base, forth=forth)


@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("l4", [tcp, udp], ids=["TCP", "UDP"])
@pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])
@MANY
@given(mutations=MUTATIONS, mended=st.booleans())
def test_mutated_packets_to_be_wrapped(  # noqa: PLR0917 - fixtures and what hypothesis makes
    bench: Bench,
    net: Net,
    l4: Make,
    program: str,
    mutations: list[Mutation],
    mended: bool,  # noqa: FBT001
) -> None:
    """What is wrapped is the packet with one hop less; what is no service's is left alone."""
    bench.give(offered(net, l4, net.there, forwarding=Way.DSR))
    frame = bytes(l4(net.client, 40000, net.vip, 80))
    base = ends_of(frame)
    assert base is not None
    for mutate in mutations:
        frame = mutate(frame)
    frame = recomputed(frame) if mended else frame
    if len(frame) < SHORTEST[net]:
        return
    ran = bench.run(program, frame)
    sent = ends_of(frame)
    ours = sent is not None and is_ours(sent, base, program, forth=True)
    if judged(program, ran.verdict) != Verdict.SEND:
        assert ran.packet == frame
        return
    if not is_odd(frame):
        assert ours
    outer = len(ran.packet) - len(frame)
    if outer != SHORTEST[net] - LINK:  # by SNAT, or a refusal: other tests are about those
        assert program == "lb_in"
        return
    inner = ran.packet[LINK + outer :]
    hops = {8, 10, 11} if net is V4 else {7}
    changed = {
        at for at, pair in enumerate(zip(frame[LINK:], inner, strict=True)) if len({*pair}) > 1
    }
    assert changed <= hops
    assert wrong(ran.packet[: LINK + outer]) == []
    assert ran.packet[LINK + outer - len(backend_octets(net)) : LINK + outer] == backend_octets(net)


def backend_octets(net: Net) -> bytes:
    """The backend's address, as it stands at the end of the outer header."""
    return parse(net.remote[0])[12 if net is V4 else 0 :]
