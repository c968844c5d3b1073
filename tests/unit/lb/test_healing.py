"""The background check: its share of a CPU, what it counts, what it says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from threading import Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.healing import LINES, PIECE_SECONDS, SHARE, Check, Healer


class Time:
    """A clock that only works and pauses move."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0

    def pause(self, seconds: float) -> None:
        """Wait."""
        self.now += seconds

    def work(self, seconds: float) -> None:
        """Take the CPU."""
        self.now += seconds
        self.worked += seconds


def healer(time: Time, *checks: Check) -> Healer:
    """One on that clock."""
    return Healer(checks, 10.0, clock=lambda: time.now, cpu=lambda: time.worked, pause=time.pause)


@given(st.lists(st.floats(1e-6, 5e-3), min_size=1, max_size=200))
def test_a_round_takes_its_share_of_a_cpu_and_no_more(steps: list[float]) -> None:
    """Whatever the steps cost; and the lock is never held for longer than a piece and a step."""
    time, held = Time(), Lock()

    def mend() -> Iterator[str]:
        for seconds in steps:
            assert held.locked()
            time.work(seconds)
            yield ""

    healer(time, Check("map", mend, held)).round()
    assert time.worked == pytest.approx(sum(steps))
    assert time.worked / time.now <= SHARE + 1e-9


def test_the_lock_is_given_up_between_pieces() -> None:
    """Others get it while we pause, and a piece is no longer than it may be."""
    time, held = Time(), Lock()
    longest = 0.0

    def pause(seconds: float) -> None:
        nonlocal longest
        assert not held.locked()
        longest = max(longest, seconds)

    def mend() -> Iterator[str]:
        for _ in range(1000):
            time.work(PIECE_SECONDS / 10)
            yield ""

    clocks = {"clock": lambda: time.now, "cpu": lambda: time.worked, "pause": pause}
    Healer([Check("map", mend, held)], 1.0, **clocks).round()
    assert longest == pytest.approx(PIECE_SECONDS * (1 / SHARE - 1), rel=0.2)


def test_a_busy_machine_makes_no_round_longer_than_its_work() -> None:
    """Time that a step waits for a CPU is not paid for with pauses."""
    time = Time()

    def mend() -> Iterator[str]:
        time.pause(1.0)
        time.work(0.001)
        yield ""

    healer(time, Check("map", mend, nullcontext())).round()
    assert time.now == pytest.approx(1.0 + 0.001 / SHARE)


def test_each_repair_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its kind; who made many repairs at once says how many; kinds without any count 0."""
    lines = iter([["x, which was missing"], [], [f"y{i}" for i in range(100)]])
    rounds = Check("map", lambda: iter(["", *next(lines)]), nullcontext())
    told: list[None] = []
    one = Healer(
        [rounds, Check("pin", lambda: iter(()), nullcontext())], 1.0,
        told=lambda: told.append(None), pause=lambda _: None,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        one.round()
        assert caplog.messages == ["put back: x, which was missing"]
        one.round()
        one.round()
    assert one.repairs == {"map": 101, "pin": 0}
    assert len(caplog.messages) == 1 + LINES + 1
    assert caplog.messages[-1] == f"put back: {100 - LINES} more of map"
    assert len(told) == 2


def test_what_cannot_be_checked_is_told_once_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error is logged when it comes, and again when it comes anew."""
    errors = iter([OSError(5, "broken"), OSError(5, "broken"), None, OSError(5, "broken")])

    def mend() -> Iterator[str]:
        error = next(errors)
        if error:
            raise error
        yield ""

    one = Healer(
        [Check("pin", mend, nullcontext()), Check("map", lambda: iter(["x"]), nullcontext())],
        1.0, pause=lambda _: None,
    )  # fmt: skip
    counts = []
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            one.round()
            counts.append(sum("could not check pin" in line for line in caplog.messages))
    assert counts == [1, 1, 1, 2]
    assert one.repairs["map"] == 4
