"""Extents never overlap, are never handed out early, and all come back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lb.extents import Extents

GRACE = 2.0


class Life(RuleBasedStateMachine):
    """Random takes, releases and time, beside a map of every line."""

    @initialize(
        capacity=st.integers(1, 70),
        found=st.lists(
            st.tuples(st.integers(-1, 70), st.sampled_from([1, 2, 3, 4, 7, 16])), max_size=5
        ),
    )
    def restart(self, capacity: int, found: list[tuple[int, int]]) -> None:
        """Extents that were read back are in use; nonsense is refused and changes nothing."""
        self.extents = Extents(capacity, grace=GRACE)
        self.now = 0.0
        self.live: dict[int, int] = {}
        self.busy_until = [0.0] * capacity
        self.busy_until[0] = float("inf")
        for offset, lines in found:
            if self.is_free(offset, size(lines)):
                self.extents.restore(offset, lines)
                self.occupy(offset, size(lines))
            else:
                with pytest.raises(ValueError, match="not free"):
                    self.extents.restore(offset, lines)

    def is_free(self, offset: int, length: int) -> bool:
        """An aligned run inside the array whose every line is free now."""
        run = self.busy_until[max(offset, 0) : offset + length]
        return (
            offset % length == 0
            and offset >= 0
            and len(run) == length
            and all(until <= self.now for until in run)
        )

    def occupy(self, offset: int, length: int) -> None:
        """Note an extent as in use."""
        self.live[offset] = length
        self.busy_until[offset : offset + length] = [float("inf")] * length

    @rule(lines=st.integers(1, 40))
    def take(self, lines: int) -> None:
        """An extent is free and aligned; there is none only if no aligned run is free."""
        length = size(lines)
        offset = self.extents.take(lines, self.now)
        if offset is None:
            assert not any(self.is_free(start, length) for start in range(self.extents.capacity))
        else:
            assert self.is_free(offset, length)
            self.occupy(offset, length)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A released extent stays busy for the grace time."""
        offset = data.draw(st.sampled_from(sorted(self.live)))
        length = self.live.pop(offset)
        self.extents.release(offset, self.now)
        self.busy_until[offset : offset + length] = [self.now + GRACE] * length

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def counts(self) -> None:
        """`used` is what is in use."""
        assert self.extents.used == sum(self.live.values())


def size(lines: int) -> int:
    """The smallest power of two that holds `lines`."""
    length = 1
    while length < lines:
        length *= 2
    return length


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40)


def test_grace_is_kept_to_the_moment() -> None:
    """A full array has room again at the end of the grace time and not before."""
    extents = Extents(2, grace=GRACE)
    assert extents.take(1, 0.0) == 1
    extents.release(1, 10.0)
    assert extents.take(1, 11.9) is None
    assert extents.take(1, 12.0) == 1


def test_everything_comes_back_whole() -> None:
    """After all single lines are released and rested, the largest extent fits again."""
    extents = Extents(64, grace=GRACE)
    taken = [extents.take(1, 0.0) for _ in range(63)]
    assert sorted(offset for offset in taken if offset is not None) == list(range(1, 64))
    assert extents.take(1, 0.0) is None
    for offset in range(1, 64):
        extents.release(offset, 0.0)
    assert extents.take(32, GRACE) == 32


@pytest.mark.parametrize("line", range(1, 16))
def test_restored_line_is_the_only_one_missing(line: int) -> None:
    """Wherever one line was restored, all others can be taken and that one cannot."""
    extents = Extents(16)
    extents.restore(line, 1)
    taken = [extents.take(1, 0.0) for _ in range(14)]
    assert {*taken, line} == set(range(1, 16))
    assert extents.take(1, 0.0) is None


@pytest.mark.parametrize("lines", [64, 65, 1000])
def test_too_large_is_no_room(lines: int) -> None:
    """More than the array can ever hold is no room, not an error."""
    assert Extents(64).take(lines, 0.0) is None


def test_release_twice_is_an_error() -> None:
    """A second release of the same extent is refused."""
    extents = Extents(8)
    extents.restore(4, 3)
    extents.release(4, 0.0)
    with pytest.raises(KeyError):
        extents.release(4, 0.0)
