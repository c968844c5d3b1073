"""How far the agent is behind: health by the age of the oldest change, latencies by family."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.address import Family
from lb.histogram import Histogram
from lb.model import ServiceName, Trigger
from lb.progress import PROGRAMMING_BOUNDS, TURN_BOUNDS, Progress

WEB, DB = ServiceName("default", "web"), ServiceName("default", "db")
EPOCH = 1000.0
STALE_SECONDS = 60.0


class Clocks:
    """A progress, and a time that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = Progress(STALE_SECONDS, lambda: self.now, lambda: EPOCH + self.now)

    def turn(self) -> None:
        """Everything that waits is applied."""
        self.progress.taken()
        self.progress.applied(Family, 0.002)


def test_an_agent_that_never_applied_anything_is_healthy() -> None:
    """However long its first full state takes to come."""
    clocks = Clocks()
    clocks.progress.queued()
    clocks.now = 10 * STALE_SECONDS
    assert clocks.progress.health() == (True, None)


def test_a_change_that_waits_too_long_is_unhealthy_until_applied() -> None:
    """The oldest one counts, to the very second, and a successful turn ends it."""
    clocks = Clocks()
    clocks.turn()
    clocks.now = 5.0
    clocks.progress.queued()
    clocks.now = 40.0
    clocks.progress.queued()
    clocks.now = 4.9 + STALE_SECONDS
    assert clocks.progress.health() == (True, EPOCH)
    clocks.now = 5.0 + STALE_SECONDS
    assert clocks.progress.health() == (False, EPOCH)
    clocks.turn()
    assert clocks.progress.health() == (True, EPOCH + clocks.now)


def test_nothing_queued_is_healthy_for_ever() -> None:
    """An idle cluster needs no turns."""
    clocks = Clocks()
    clocks.turn()
    clocks.now = 1e6
    assert clocks.progress.health() == (True, EPOCH)


def test_a_turn_that_hangs_is_unhealthy() -> None:
    """Changes that were taken and never applied are as old as if they had waited."""
    clocks = Clocks()
    clocks.turn()
    clocks.progress.queued()
    clocks.now = 1.0
    clocks.progress.taken()
    clocks.progress.queued()
    clocks.now = STALE_SECONDS
    assert not clocks.progress.health().healthy


def test_a_failed_turn_keeps_the_age_of_its_changes() -> None:
    """The next turn takes them with it, and does not make them young."""
    clocks = Clocks()
    clocks.turn()
    clocks.progress.queued()
    clocks.progress.taken()
    clocks.now = 30.0
    clocks.progress.queued()
    clocks.progress.taken()
    clocks.now = STALE_SECONDS
    assert not clocks.progress.health().healthy
    clocks.progress.applied((), 0.0)
    assert clocks.progress.health().healthy


def test_programming_latency_runs_from_the_trigger_to_the_applied_turn() -> None:
    """By family; a clock that is ahead counts as no time at all."""
    clocks = Clocks()
    clocks.now = 10.0
    triggers = [
        Trigger(WEB, Family.IPV4, EPOCH + 8.5),
        Trigger(WEB, Family.IPV6, EPOCH + 99.0),
    ]
    clocks.progress.applied((), 0.0, triggers)
    four, six = (clocks.progress.programming[one] for one in Family)
    assert (four.sum, four.cumulative()[-1]) == (1.5, 1)
    assert (six.sum, six.cumulative()[0]) == (0.0, 1)


def test_a_service_that_fails_counts_once_it_is_well() -> None:
    """Its latency is the true one, and nobody else waits for it."""
    clocks = Clocks()
    triggers = [Trigger(one, Family.IPV4, EPOCH) for one in (WEB, DB)]
    clocks.progress.applied((), 0.0, triggers, failing={DB})
    four = clocks.progress.programming[Family.IPV4]
    assert four.cumulative()[-1] == 1
    clocks.now = 7.0
    clocks.progress.applied((), 0.0)
    assert (four.sum, four.cumulative()[-1]) == (7.0, 2)


def test_full_and_partial_turns_are_told_apart() -> None:
    """Both count among all; families that nothing touched count nothing."""
    clocks = Clocks()
    progress = clocks.progress
    progress.applied(Family, 0.5, full=True)
    progress.applied({Family.IPV6}, 0.001)
    counts = {
        (kind, family): found[family].cumulative()[-1]
        for kind, found in (
            ("all", progress.turns),
            ("full", progress.full_turns),
            ("partial", progress.partial_turns),
        )
        for family in Family
    }
    assert counts == {
        ("all", 4): 1, ("full", 4): 1, ("partial", 4): 0,
        ("all", 6): 2, ("full", 6): 1, ("partial", 6): 1,
    }  # fmt: skip


@given(st.lists(st.floats(-1, 400)))
def test_a_histogram_counts_what_is_at_most_each_bound(values: list[float]) -> None:
    """Prometheus' `le`: a value on a bound belongs to it."""
    for bounds in (TURN_BOUNDS, PROGRAMMING_BOUNDS):
        histogram = Histogram(bounds)
        for value in values:
            histogram.observe(value)
        expected = [sum(value <= bound for value in values) for bound in bounds]
        assert histogram.cumulative() == [*expected, len(values)]


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["queued", "taken", "applied", "failed"]),
        st.floats(0.0, 40.0).map(lambda seconds: round(seconds, 1)),
    )
)


@given(STEPS)
def test_health_is_the_age_of_the_oldest_change_that_is_not_applied(
    steps: list[str | float],
) -> None:
    """Whatever comes in between: turns that take time, that fail, and changes during them."""
    clocks = Clocks()
    clocks.turn()
    waiting: list[float] = []
    taken: list[float] = []
    for step in steps:
        match step:
            case "queued":
                clocks.progress.queued()
                waiting.append(clocks.now)
            case "taken" | "failed":
                clocks.progress.taken()
                taken, waiting = taken + waiting, []
            case "applied":
                clocks.progress.taken()
                clocks.progress.applied((), 0.0)
                taken, waiting = [], []
            case float():
                clocks.now += step
        oldest = min(taken + waiting, default=clocks.now)
        assert clocks.progress.health().healthy is (clocks.now - oldest < STALE_SECONDS)
