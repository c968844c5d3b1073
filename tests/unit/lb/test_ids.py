"""Ids are never shared, never handed out early, and all come back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lb.ids import Ids

GRACE = 2.0


class Life(RuleBasedStateMachine):
    """Random takes, releases and time, beside a table of every id."""

    @initialize(capacity=st.integers(1, 12), found=st.lists(st.integers(-1, 13), max_size=5))
    def restart(self, capacity: int, found: list[int]) -> None:
        """Ids that were read back are in use; nonsense is refused and changes nothing."""
        self.ids = Ids(capacity, grace=GRACE)
        self.now = 0.0
        self.fresh = set(range(1, capacity))
        self.live: set[int] = set()
        self.resting: dict[int, float] = {}
        for number in found:
            if number in self.fresh:
                self.ids.restore(number)
                self.fresh.remove(number)
                self.live.add(number)
            else:
                with pytest.raises(ValueError, match="not free"):
                    self.ids.restore(number)

    @rule()
    def take(self) -> None:
        """The lowest fresh id comes first, then a rested one; else there is no room."""
        number = self.ids.take(self.now)
        rested = {one for one, since in self.resting.items() if since + GRACE <= self.now}
        if self.fresh:
            assert number == min(self.fresh)
        elif rested:
            assert number in rested
            assert self.resting[number] == min(self.resting.values())
        else:
            assert number is None
            return
        self.fresh.discard(number)
        self.resting.pop(number, None)
        self.live.add(number)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A released id rests."""
        number = data.draw(st.sampled_from(sorted(self.live)))
        self.ids.release(number, self.now)
        self.live.remove(number)
        self.resting[number] = self.now

    @rule(number=st.integers(-1, 13))
    def restore_late(self, number: int) -> None:
        """An id that was ever in use cannot be restored."""
        if number not in self.fresh:
            with pytest.raises(ValueError, match="not free"):
                self.ids.restore(number)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def counts(self) -> None:
        """`used` is what is in use."""
        assert self.ids.used == len(self.live)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40)


def test_grace_is_kept_to_the_moment() -> None:
    """A full range has room again at the end of the grace time and not before."""
    ids = Ids(2, grace=GRACE)
    assert ids.take(0.0) == 1
    ids.release(1, 10.0)
    assert ids.take(11.9) is None
    assert ids.take(12.0) == 1


def test_release_twice_is_an_error() -> None:
    """A second release of the same id is refused."""
    ids = Ids(8)
    ids.restore(4)
    ids.release(4, 0.0)
    with pytest.raises(KeyError):
        ids.release(4, 0.0)


def test_put_back_needs_no_rest() -> None:
    """An id that was never used is taken again at once, before those that rest."""
    ids = Ids(3, grace=2.0)
    assert (ids.take(0.0), ids.take(0.0)) == (1, 2)
    ids.release(1, 0.0)
    ids.put_back(2)
    assert (ids.take(0.0), ids.take(0.0), ids.used) == (2, None, 1)
    with pytest.raises(KeyError):
        ids.put_back(1)
