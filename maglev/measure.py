"""How good a Maglev table is: the share of each backend, and what a change of backends moves.

Pure. Tables are sequences of backend numbers, as `maglev.build` returns them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """What one backend got. `fair` is in slots, and no whole number."""

    number: int
    weight: int
    slots: int
    fair: float

    @property
    def ratio(self) -> float:
        """Slots over fair slots; 1.0 is perfect."""
        return self.slots / self.fair if self.fair else 1.0


def shares(table: Sequence[int], weights: Mapping[int, int]) -> list[Share]:
    """The share of each backend number in `weights`, in its order."""
    slots, total = Counter(table), sum(weights.values()) or 1
    return [
        Share(number, weight, slots[number], len(table) * weight / total)
        for number, weight in weights.items()
    ]


class Disruption(NamedTuple):
    """What became of the slots whose backend is in both tables; all counts are slots.

    Slots that a new backend takes have to move: it is given its share. Slots that pass from one
    staying backend to another are the price of the algorithm.
    """

    staying: int
    taken: int
    shuffled: int

    @property
    def taken_share(self) -> float:
        """The part that new backends took, 0 to 1."""
        return self.taken / self.staying if self.staying else 0.0

    @property
    def shuffled_share(self) -> float:
        """The part that moved although old and new backend were there all along, 0 to 1."""
        return self.shuffled / self.staying if self.staying else 0.0


def disruption(before: Sequence[int], after: Sequence[int]) -> Disruption:
    """Compares two tables slot by slot. Raises ValueError if their sizes differ."""
    old, new = frozenset(before), frozenset(after)
    stay = [(was, now) for was, now in zip(before, after, strict=True) if was in new]
    moved = [now for was, now in stay if was != now]
    taken = sum(now not in old for now in moved)
    return Disruption(len(stay), taken, len(moved) - taken)
