"""When a packet of a limited pod may leave: `bpf/edt.h` in Python, word for word. Pure.

What tests compare the program with, and what numbers of a limit follow from its rate.
Times are ns of CLOCK_MONOTONIC, clocks are ticks of it, lengths are bytes of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bpf.layout import Edt

SECOND = 1_000_000_000
QUEUE_NS, QUEUE_OCTETS = 50_000_000, 32_768
"""The queue of a limit: this long, and at low rates at least so much."""
MARK_NS, MARK_OCTETS = 1_000_000, 3_028
"""Marks begin at 1 ms, or behind two full frames: with less, a sender far away never gets going."""
_EPOCH = 28
_WORD = (1 << 32) - 1


class Terms(NamedTuple):
    """What a limit's entry is told: bytes per second, and two times in ns."""

    rate: int
    longest: int
    mark: int


def terms(bits: int) -> Terms:
    """What follows from a rate in bits per second."""
    rate = max(1, bits // 8)
    longest = max(QUEUE_NS, QUEUE_OCTETS * SECOND // rate)
    mark = max(MARK_NS, MARK_OCTETS * SECOND // rate)
    return Terms(rate, min(longest, Edt.HORIZON), min(mark, Edt.HORIZON))


@dataclass(slots=True)
class Pacer:
    """The state of one limit."""

    terms: Terms
    clock: int = 0
    quick: int = 0
    epoch: int = 0
    flows: int = 0
    flow: list[int] = field(default_factory=lambda: [0] * Edt.FLOWS)
    seen: list[int] = field(default_factory=lambda: [0] * Edt.FLOWS)


class Departure(NamedTuple):
    """What becomes of a packet that is let through."""

    at: int
    mark: bool
    overtook: bool


def _sharers(pacer: Pacer, slot: int, now: int) -> int:
    present = now >> _EPOCH & _WORD
    if pacer.epoch & _WORD != present:
        follows = (pacer.epoch & _WORD) + 1 == present
        pacer.flows = pacer.epoch >> 32 if follows else 0
        pacer.epoch = present
    if pacer.seen[slot] != present:
        pacer.seen[slot] = present
        pacer.epoch += 1 << 32
    return max(pacer.flows, pacer.epoch >> 32, 1)


def depart(pacer: Pacer, *, hash_: int, length: int, now: int, asked: int = 0) -> Departure | None:
    """When the packet leaves; None: it is dropped."""
    rate, longest, mark = pacer.terms
    cost = -(-length * SECOND * Edt.TICKS // rate)
    horizon = Edt.HORIZON * Edt.TICKS
    ticks, wait = now * Edt.TICKS, min(max(longest * Edt.TICKS, cost), horizon)
    slot = hash_ % Edt.FLOWS
    count = _sharers(pacer, slot, now)
    own = max(pacer.flow[slot], pacer.quick, ticks)
    at = max(pacer.clock, ticks)
    overtook = own < at and length <= Edt.FRAME
    if (own if overtook else at) > ticks + wait or at > ticks + min(2 * wait, horizon):
        return None
    pacer.clock = at + cost
    if overtook:
        quick = max(pacer.quick, ticks)
        pacer.quick = quick + Edt.LANE * cost
        at = max(quick, pacer.flow[slot])
    pacer.flow[slot] = at + cost * count * Edt.SHARE
    leaves = -(-at // Edt.TICKS)
    if leaves < asked <= now + Edt.HORIZON:
        leaves = asked
    return Departure(leaves, at > ticks + mark * Edt.TICKS, overtook)
