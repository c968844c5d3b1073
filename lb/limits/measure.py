"""Is a limit in force? Measured: what a program told to wait, a queue must have held back. Pure.

The programs only write a time on a packet. On a device whose queue does not look at it (a bond's
members, a tunnel's lower device) packets leave at once, with every program attached and every
queue in its place. The queue's own count tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

ENOUGH = 50
"""Packets told to wait between two looks from which on some must have been held back."""


class Sample(NamedTuple):
    """Counts of a limit since its beginning."""

    delayed: int
    octets: int


class Gauge:
    """Compares each look with the one before."""

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None

    def loose(self, samples: Iterable[Sample], held_back: int) -> str | None:
        """Why packets leave before their time; "" if they do not; None: too few to say."""
        delayed = sum(one.delayed for one in samples)
        before, self._before = self._before, (delayed, held_back)
        if before is None or delayed - before[0] < ENOUGH:
            return None
        if held_back != before[1]:
            return ""
        return (
            f"measured: {delayed - before[0]} packets were told to wait and no queue held any: "
            "name the devices that packets really leave by with --devices"
        )
