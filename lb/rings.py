"""Maglev rings of the units that are reached from outside: which slot is whose, and where they lie.

A ring is a function of the backends' addresses and ports and of its size, so every node of a
cluster gives a client the same backend. Its slots hold this node's backend ids, u32 in memory
order, two to an element of the table `rings`. A new ring is written where nothing points, then
one 64-bit store makes it the service's, then the old one rests before it is used again.

Not for who is in a ring: that is `lb.plan` (view OUTSIDE) and `lb.placing`.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from bpf.maps import Array
from lb.address import Address, show_port
from lb.config import BACKEND_SLOTS, RING_SLOTS
from lb.extents import Extents
from lb.histogram import Histogram
from lb.tables import FLAGS, Tables

SEED = b"tidegate"
"""The cluster's seed. Another one moves almost every slot, on the nodes that have it."""
RING = 40
"""Where in struct service the word of its ring lies: size low, first slot high."""
BUILD_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
"""Upper bounds, in seconds, of how long a ring takes."""
BUILT, TOO_MANY, FULL, REFUSED = "built", "too_many_backends", "map_full", "refused"
"""What comes of a try to build a ring."""

_log = logging.getLogger("tidegate")


class Member(NamedTuple):
    """A backend in a ring. `id` is what its slots hold."""

    address: Address
    port: int
    weight: int
    id: int


class Builds:
    """What came of rings that were to be built. Not thread-safe."""

    def __init__(self) -> None:
        self.results = dict.fromkeys((BUILT, TOO_MANY, FULL, REFUSED), 0)
        self.durations = Histogram(BUILD_BOUNDS)
        """Of those that were built: to fill and to write."""

    def built(self, seconds: float) -> None:
        """One more."""
        self.results[BUILT] += 1
        self.durations.observe(seconds)


class Rings:
    """Owns the table `rings`. `grace` is in seconds, `limit` in slots: the largest ring, a prime.

    Up to that a ring has at least `each` slots a backend. `clock` is in seconds, and measures how
    long rings take. Not thread-safe.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        grace: float,
        limit: int = RING_SLOTS,
        each: int = BACKEND_SLOTS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limit, self._each = limit, each
        self.extents = Extents(tables.rings.capacity, grace=grace)
        self.builds = Builds()
        self._tables, self._clock = tables, clock
        self._told = False

    def switch(self, service: int, before: int, members: Sequence[Member], now: float) -> int:
        """Give the service a ring of these in place of `before`; its word, 0 for none.

        Raises what a store raises; then the ring of before is still in force.
        """
        word = self._write(members, now) if members else 0
        try:
            self._tables.services.store_word(service, RING, word)
        except BaseException:
            self.release(word, now)
            raise
        self.release(before, now)
        return word

    def release(self, word: int, now: float) -> None:
        """Let the extent of a ring rest that no service points to any more; 0: none."""
        if word:
            self.extents.release(word >> 33, now)

    def restore(self, word: int) -> None:
        """Mark a ring in use that was read back. ValueError: it cannot be there."""
        if not is_plausible(self._tables.rings, word):
            raise ValueError("its ring is not within the table")
        size, first = word & 0xFFFFFFFF, word >> 32
        self.extents.restore(first // 2, _pairs(size))

    def size(self, weights: Sequence[int]) -> int:
        """Slots in a ring of backends with these weights: enough for each unit of weight."""
        from maglev import table_size  # noqa: PLC0415 - only nodes with rings pay for it

        if len(weights) < 2:
            return len(weights)
        return table_size(sum(weights) // math.gcd(*weights), self.limit, self._each)

    def _write(self, members: Sequence[Member], now: float) -> int:
        """The word of a new ring; 0: there is no room for it."""
        size = self.size([one.weight for one in members])
        if len(members) > size:
            why = f"{len(members)} backends: too many for --maglev-table-size {self.limit}"
            self._go_without(TOO_MANY, why)
            return 0
        offset = self.extents.take(_pairs(size), now)
        if offset is None:
            self._go_without(FULL, f"map full: rings; raise {FLAGS['rings']}")
            return 0
        began = self._clock()
        try:
            self._tables.rings.write(offset, slots_of(members, size))
        except BaseException:
            self.extents.release(offset, now)
            self.builds.results[REFUSED] += 1
            raise
        self.builds.built(self._clock() - began)
        return offset << 33 | size

    def _go_without(self, result: str, why: str) -> None:
        """Told once: such services are served all the same, by hash over their backends."""
        self.builds.results[result] += 1
        if not self._told:
            _log.warning("a service from outside goes without a Maglev ring: %s", why)
        self._told = True


def is_plausible(table: Array, word: int) -> bool:
    """Does the word describe a ring within the table?"""
    size, first = word & 0xFFFFFFFF, word >> 32
    return size > 0 and first >= 2 and first % 2 == 0 and first + size <= 2 * table.capacity


def backends_of(table: Array, word: int) -> Collection[int]:
    """The ids in a plausible ring."""
    size, first = word & 0xFFFFFFFF, word >> 32
    return set(memoryview(table.read(first // 2, _pairs(size))).cast("I")[:size])


def _pairs(slots: int) -> int:
    return -(-slots // 2)


def slots_of(members: Sequence[Member], size: int) -> bytes:
    """The ring's elements; the half after an odd last slot is 0."""
    from maglev import Backend, build  # noqa: PLC0415 - only nodes with rings pay for it

    if size == 1:
        slots = array("I", [members[0].id])
    else:
        named = [Backend(show_port(one.address, one.port), one.weight, one.id) for one in members]
        slots = build(named, size=size, seed=SEED)
    slots.extend([0] * (size % 2))
    return slots.tobytes()
