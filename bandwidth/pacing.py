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
_SHORT = (1 << 16) - 1


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
    flow: list[int] = field(default_factory=lambda: [0] * Edt.ROWS * Edt.FLOWS)
    seen: list[int] = field(default_factory=lambda: [0] * Edt.SEEN)


class Departure(NamedTuple):
    """What becomes of a packet that is let through."""

    at: int
    mark: bool
    overtook: bool


def _sharers(pacer: Pacer, hash_: int, now: int) -> int:
    present, slot = now >> _EPOCH & _WORD, hash_ >> 24 & (Edt.SEEN - 1)
    if pacer.epoch & _WORD != present:
        follows = (pacer.epoch & _WORD) + 1 == present
        pacer.flows = pacer.epoch >> 32 if follows else 0
        pacer.epoch = present
    if pacer.seen[slot] != present & _SHORT:
        pacer.seen[slot] = present & _SHORT
        pacer.epoch += 1 << 32
    return max(pacer.flows, pacer.epoch >> 32, 1)


def depart(pacer: Pacer, *, hash_: int, length: int, now: int, asked: int = 0) -> Departure | None:
    """When the packet leaves; None: it is dropped."""
    rate, longest, mark = pacer.terms
    cost, frame = (-(-octets * SECOND * Edt.TICKS // rate) for octets in (length, Edt.FRAME))
    horizon = Edt.HORIZON * Edt.TICKS
    ticks, wait = now * Edt.TICKS, min(max(longest * Edt.TICKS, cost), horizon)
    places = [row * Edt.FLOWS + (hash_ >> row * 6) % Edt.FLOWS for row in range(Edt.ROWS)]
    due = max(min(pacer.flow[place] for place in places), ticks)
    debt = due + cost * _sharers(pacer, hash_, now) * 3 // 2
    at, lane = max(pacer.clock, ticks), max(pacer.quick, ticks)
    full = Edt.LANE * frame
    room = 3 * (full - Edt.LANE * cost)
    own = max(due, lane - room)
    overtook = length <= Edt.FRAME and own < at and lane <= ticks + room + full + full // 2
    if length <= Edt.FRAME:
        wait = min(wait + frame - cost, horizon)
    if (own if overtook else at) > ticks + wait or at > ticks + min(2 * wait, horizon):
        return None
    pacer.clock = at + cost
    if overtook:
        pacer.quick = lane + Edt.LANE * cost
        at = own
    until = max(at, min(debt, ticks + Edt.DEBT * Edt.TICKS))
    for place in places:
        pacer.flow[place] = max(pacer.flow[place], until)
    leaves = -(-at // Edt.TICKS)
    if leaves < asked <= now + Edt.HORIZON:
        leaves = asked
    return Departure(leaves, at > ticks + mark * Edt.TICKS, overtook)
