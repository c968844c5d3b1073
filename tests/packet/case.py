"""A row: what is given, one packet, and what must become of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.layout import Reason
from bpf.texts import LB_XDP
from tests.packet.bench import Bench
from tests.packet.given import Given
from tests.packet.packets import difference, with_port


class Verdict(IntEnum):
    """What a tc program says (include/uapi/linux/pkt_cls.h)."""

    PASS = 0xFFFFFFFF  # TC_ACT_UNSPEC: whatever is next sees it
    DROP = 2
    SEND = 7  # TC_ACT_REDIRECT


XDP = {1: Verdict.DROP, 2: Verdict.PASS, 3: Verdict.SEND, 4: Verdict.SEND}
"""What an XDP program says (include/uapi/linux/bpf.h), in the words of tc: up to tc is PASS."""


def judged(program: str, number: int) -> Verdict:
    """What a program's answer means."""
    return XDP[number] if program == LB_XDP.name else Verdict(number)


class Case(NamedTuple):
    """`given` None: all stays as the row before left it. `got` None: not one byte is changed."""

    name: str
    given: tuple[Given, ...] | None
    sent: Packet
    verdict: Verdict = Verdict.PASS
    got: Packet | None = None
    counted: Mapping[Reason, int] = {}
    program: str = "lb_in"


def play(bench: Bench, case: Case) -> Packet:
    """Runs the row and checks it; the packet that came of it."""
    if case.given is not None:
        bench.give(*case.given)
    before = bench.counted()
    ran = bench.run(case.program, bytes(case.sent))
    after = bench.counted()
    counted = {one: after[one] - before.get(one, 0) for one in after}
    verdict = judged(case.program, ran.verdict)
    assert verdict == case.verdict, f"{case.name}: {verdict.name}"
    assert {one: count for one, count in counted.items() if count} == dict(case.counted), case.name
    if case.verdict != Verdict.DROP:
        wanted = with_port(case.sent if case.got is None else case.got, ran.packet)
        assert not (text := difference(wanted, ran.packet)), f"{case.name}:\n{text}"
    return Ether(ran.packet)
