"""Contiguous runs of lines in a kernel array: taken in powers of two, freed late.

A binary buddy allocator (Knuth, The Art of Computer Programming 1, 2.5). A kernel program may
still read an extent that user space has just replaced, so a released one rests for a grace
time before it is merged and handed out again. Line 0 is never handed out: it can mean "none".

Not for what the lines hold, and no clock: callers say what time it is.
"""

from __future__ import annotations

from collections import deque


class Extents:
    """Lines 1 to `capacity` - 1 of an array of `capacity` lines. `grace` is in seconds."""

    def __init__(self, capacity: int, *, grace: float = 2.0) -> None:
        self.capacity = capacity
        self.used = 0
        """Lines in extents that are handed out, without those that rest."""
        self._grace = grace
        self._free: list[set[int]] = [set() for _ in range(capacity.bit_length())]
        self._taken: dict[int, int] = {}
        self._resting: deque[tuple[float, int, int]] = deque()
        offset = 1
        while offset < capacity:
            order = min((offset & -offset).bit_length(), (capacity - offset).bit_length()) - 1
            self._free[order].add(offset)
            offset += 1 << order

    def take(self, lines: int, now: float) -> int | None:
        """The offset of an extent of `lines` (1 or more) at `now` (seconds); None: no room."""
        self._wake(now)
        wanted = _order(lines)
        for order in range(wanted, len(self._free)):
            if self._free[order]:
                offset = self._free[order].pop()
                self._claim(offset, wanted, block=offset, order=order)
                return offset
        return None

    def release(self, offset: int, now: float) -> None:
        """Give an extent back; it rests from `now` on. KeyError: no extent in use starts there."""
        order = self._taken.pop(offset)
        self.used -= 1 << order
        self._resting.append((now + self._grace, offset, order))

    def restore(self, offset: int, lines: int) -> None:
        """Mark an extent in use that was read back, before any take. ValueError: it is not free."""
        wanted = _order(lines)
        for order in range(wanted, len(self._free)):
            block = offset >> order << order
            if block in self._free[order] and offset >> wanted << wanted == offset:
                self._free[order].remove(block)
                self._claim(offset, wanted, block=block, order=order)
                return
        raise ValueError(f"{lines} lines at {offset} are not free")

    def _claim(self, offset: int, wanted: int, *, block: int, order: int) -> None:
        """Halve the block down to the extent inside it; the other halves stay free."""
        while order > wanted:
            order -= 1
            upper = block + (1 << order)
            block, spare = (upper, block) if offset >= upper else (block, upper)
            self._free[order].add(spare)
        self._taken[offset] = wanted
        self.used += 1 << wanted

    def _wake(self, now: float) -> None:
        """Free what has rested long enough, merged with its buddies."""
        while self._resting and self._resting[0][0] <= now:
            _, offset, order = self._resting.popleft()
            while (buddy := offset ^ 1 << order) in self._free[order]:
                self._free[order].remove(buddy)
                offset = min(offset, buddy)
                order += 1
            self._free[order].add(offset)


def _order(lines: int) -> int:
    return (lines - 1).bit_length()
