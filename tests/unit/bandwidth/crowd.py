"""Bulk TCP senders and one thin flow of requests behind one queue: a simulation, for figures.

The senders are as crude as TCP can be and still crowd a queue as it does: a window, halved at a
loss and reset by a time-out, selective acknowledgements, segments sent in pairs. Times are ns.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from bandwidth.pacing import SECOND, Pacer, depart, terms

MS = 1_000_000
RTT, PAUSE = 2 * MS, 10 * MS
SEGMENT, PAIR, SMALL = 1514, 2 * 1514, 130
"""Frames, in bytes; a pair comes as one packet."""
_TIMEOUT = 200 * MS


Queue = Callable[[int, int, int], int | None]
"""When a packet leaves, by its flow, its length and the time; None: it is dropped."""


def ours(bits: int) -> Queue:
    """What the data path does."""
    pacer = Pacer(terms(bits))

    def send(flow: int, length: int, now: int) -> int | None:
        went = depart(pacer, hash_=flow, length=length, now=now)
        return went.at if went else None

    return send


def tbf(bits: int, *, burst: int = 32_768, latency: int = 50 * MS) -> Queue:
    """One FIFO of so many bytes, as tc-tbf(8) has it."""
    rate = bits / 8 / SECOND
    room, backlog, last = burst + latency * rate, 0.0, 0

    def send(flow: int, length: int, now: int) -> int | None:  # noqa: ARG001
        nonlocal backlog, last
        backlog, last = max(0.0, backlog - (now - last) * rate), now
        if backlog + length > room:
            return None
        backlog += length
        return now + int(backlog / rate)

    return send


def policed(bits: int, *, bucket: int = 100 * MS) -> Queue:
    """No queue: what exceeds the rate and a bucket of so many ns is dropped (tc-police(8))."""
    rate = bits / 8 / SECOND
    size = bucket * rate
    tokens, last = size, 0

    def send(flow: int, length: int, now: int) -> int | None:  # noqa: ARG001
        nonlocal tokens, last
        tokens, last = min(size, tokens + (now - last) * rate), now
        if tokens < length:
            return None
        tokens -= length
        return now

    return send


class Line:
    """The queue, the wire behind it, and what happens when."""

    def __init__(self, queue: Queue, random: Random) -> None:
        self.queue, self.random, self.now = queue, random, 1000 * SECOND
        self.sent: list[tuple[int, int]] = []
        """When each packet left, and its length."""
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def later(self, wait: int, what: Callable[[], None]) -> None:
        """Do it then."""
        heapq.heappush(self._events, (self.now + wait, next(self._numbers), what))

    def send(self, flow: int, length: int, arrived: Callable[[], None]) -> bool:
        """One packet; `arrived` is called when it is acknowledged. False: it is lost."""
        at = self.queue(flow, length, self.now)
        if at is not None:
            self.sent.append((at, length))
            self.later(at - self.now + RTT, arrived)
        return at is not None

    def run(self, seconds: int) -> None:
        """Until then."""
        end = 1000 * SECOND + seconds * SECOND
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()


class Bulk:
    """A sender that never runs out."""

    def __init__(self, line: Line, flow: int) -> None:
        self._line, self._flow = line, flow
        self._window, self._flying = 10.0, dict[int, int]()
        self._numbers, self._acked, self._halved, self._backoff = itertools.count(), -1, -1, 0
        self._timer = 0
        line.later(line.random.randrange(200 * MS), self._push)

    def _push(self) -> None:
        while len(self._flying) * 2 < int(self._window) or not self._flying:
            number = next(self._numbers)
            self._flying[number] = self._line.now
            length = PAIR if self._window >= 2 else SEGMENT
            self._line.send(self._flow, length, lambda number=number: self._arrived(number))
        self._timer += 1
        timer = self._timer
        self._line.later(_TIMEOUT << self._backoff, lambda: self._silence(timer))

    def _arrived(self, number: int) -> None:
        self._acked, self._backoff = max(self._acked, number), 0
        self._flying.pop(number, None)
        lost = [one for one in self._flying if one < self._acked - 2]
        for one in lost:
            del self._flying[one]
        if lost and number > self._halved:
            self._window, self._halved = max(2.0, self._window * 0.7), max(self._flying, default=0)
        elif not lost:
            self._window += 1 / self._window
        self._push()

    def _silence(self, timer: int) -> None:
        if timer == self._timer:
            self._window, self._backoff = 1.0, min(6, self._backoff + 1)
            self._flying.clear()
            self._push()


class Thin:
    """One small request after the other; one that is lost is sent again after a while."""

    def __init__(self, line: Line, flow: int) -> None:
        self._line, self._flow, self._began = line, flow, 0
        self.took: list[int] = []
        self.lost = 0
        line.later(3 * SECOND, self._ask)

    def _ask(self) -> None:
        self._began = self._line.now
        self._send()

    def _send(self) -> None:
        if not self._line.send(self._flow, SMALL, self._answered):
            self.lost += 1
            self._line.later(_TIMEOUT, self._send)

    def _answered(self) -> None:
        self.took.append(self._line.now - self._began)
        self._line.later(PAUSE, self._ask)


class Seen(NamedTuple):
    """`rate` in bits per second, times of requests in ms."""

    rate: float
    p50: float
    p99: float
    lost: int


def play(queue: Queue, *, flows: int, seconds: int, seed: int) -> Seen:
    """So many bulk senders and the thin one; the first three seconds do not count."""
    line = Line(queue, Random(seed))
    hashes = [line.random.getrandbits(32) for _ in range(flows + 1)]
    senders = [Bulk(line, one) for one in hashes[1:]]
    thin = Thin(line, hashes[0])
    line.run(seconds)
    assert len(senders) == flows
    begin, end = 1003 * SECOND, (1000 + seconds) * SECOND
    octets = sum(length for at, length in line.sent if begin <= at < end)
    took = sorted(thin.took)
    middle, last = took[len(took) // 2], took[len(took) * 99 // 100]
    return Seen(octets * 8 * SECOND / (end - begin), middle / MS, last / MS, thin.lost)
