"""Small numbers that name things in kernel maps: stable while in use, freed late.

A kernel program may still hold an id that user space has just released, so a released one
rests for a grace time before it may name something else. Id 0 is never handed out.

Not for what the ids name, and no clock: callers say what time it is.
"""

from __future__ import annotations

from collections import deque

_NEVER, _USED, _RESTS = range(3)
"""States of an id, a byte each: a set of a hundred thousand numbers takes 4 MB."""
_UNUSED = bytes(state != _USED for state in range(256))


class Ids:
    """Ids 1 to `capacity` - 1, as indices of an array of that capacity. `grace` is in seconds."""

    def __init__(self, capacity: int, *, grace: float = 2.0) -> None:
        self.capacity = capacity
        self._grace = grace
        self._fresh = 1
        self._states = bytearray(capacity)
        self._count = 0
        self._resting: deque[tuple[float, int]] = deque()

    @property
    def used(self) -> int:
        """How many ids are in use, without those that rest."""
        return self._count

    def strays(self, first: int, live: bytes) -> list[int]:
        """Ids from `first` on that somebody holds for live (1, else 0) and that are not in use."""
        unused = self._states[first : first + len(live)].translate(_UNUSED)
        both = int.from_bytes(live) & int.from_bytes(unused)
        if not both:
            return []
        return [first + i for i, one in enumerate(both.to_bytes(len(live))) if one]

    def take(self, now: float) -> int | None:
        """The lowest id never used, else the one that rested longest; None: no room."""
        while self._fresh < self.capacity and self._states[self._fresh] != _NEVER:
            self._fresh += 1
        if self._fresh < self.capacity:
            number = self._fresh
        elif self._resting and self._resting[0][0] <= now:
            _, number = self._resting.popleft()
        else:
            return None
        self._states[number] = _USED
        self._count += 1
        return number

    def release(self, number: int, now: float) -> None:
        """Give an id back; it rests from `now` (seconds) on. KeyError: it is not in use."""
        if not 0 < number < self.capacity or self._states[number] != _USED:
            raise KeyError(number)
        self._states[number] = _RESTS
        self._count -= 1
        self._resting.append((now + self._grace, number))

    def put_back(self, number: int) -> None:
        """Give back an id that no program ever saw, without a rest. KeyError: it is not in use."""
        if not 0 < number < self.capacity or self._states[number] != _USED:
            raise KeyError(number)
        self._states[number] = _RESTS
        self._count -= 1
        self._resting.appendleft((float("-inf"), number))

    def restore(self, number: int) -> None:
        """Mark an id in use that was read back. ValueError: out of range, or already known."""
        if not 0 < number < self.capacity or self._states[number] != _NEVER:
            raise ValueError(f"id {number} is not free")
        self._states[number] = _USED
        self._count += 1
