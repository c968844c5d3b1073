"""How far the agent is behind: changes that wait, when the last were applied, and how long it took.

Has a lock of its own, held for moments: whoever asks after health is answered also while a turn of
the controller takes long, or hangs. Not for what is wrong with single services: that is
`lb.reconcile`'s, and takes no health from a node that serves all others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from lb.address import Family
from lb.histogram import Histogram
from lb.model import ServiceName, Trigger

TURN_BOUNDS = tuple(0.001 * 2**n for n in range(15))
"""Upper bounds, in seconds, of kube-proxy's `sync_proxy_rules_duration_seconds`."""
PROGRAMMING_BOUNDS = (
    0.0, 0.25, 0.5, *map(float, (*range(1, 60), *range(60, 120, 5), *range(120, 301, 30))),
)  # fmt: skip
"""The same of `network_programming_duration_seconds`; the 0 comes of how Kubernetes joins lists."""
FINE_BOUNDS = tuple(0.0001 * 2**n for n in range(18))
"""Upper bounds, in seconds, of our own: 0.1 ms to 13 s, where kube-proxy's begin with 250 ms."""
_MOST_UNFINISHED = 1000


class Health(NamedTuple):
    """`updated`: when changes were last applied, seconds since the epoch; None: never yet."""

    healthy: bool
    updated: float | None


class Progress:
    """For any thread. A change that waits for `stale` seconds makes the agent unhealthy.

    `clock` is monotonic and `wall` since the epoch, both in seconds.
    """

    def __init__(
        self,
        stale: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._stale, self._clock, self._wall = stale, clock, wall
        self.started = wall()
        self.lock = threading.Lock()
        """Guards everything here."""
        self.queued_at: float | None = None
        """When changes last came, since the epoch."""
        self.updated: float | None = None
        self.turns = {family: Histogram(TURN_BOUNDS) for family in Family}
        self.full_turns = {family: Histogram(TURN_BOUNDS) for family in Family}
        self.partial_turns = {family: Histogram(TURN_BOUNDS) for family in Family}
        self.programming = {family: Histogram(PROGRAMMING_BOUNDS) for family in Family}
        self.fine = {family: Histogram(FINE_BOUNDS) for family in Family}
        """The same as `programming`."""
        self.waits = Histogram(FINE_BOUNDS)
        """From the arrival of a turn's first change until the turn was applied."""
        self._waiting: float | None = None
        """When the oldest change came that no turn has taken yet."""
        self._taken: float | None = None
        """When the oldest came that a turn has taken, and not applied."""
        self._unfinished: list[Trigger] = []

    def queued(self) -> None:
        """Changes came."""
        with self.lock:
            self.queued_at = self._wall()
            if self._waiting is None:
                self._waiting = self._clock()

    def taken(self) -> None:
        """A turn begins with all that came. What an earlier one left undone stays the oldest."""
        with self.lock:
            self._taken = self._waiting if self._taken is None else self._taken
            self._waiting = None

    def applied(
        self,
        families: Collection[Family],
        seconds: float,
        triggers: Iterable[Trigger] = (),
        *,
        full: bool = False,
        failing: Collection[ServiceName] = (),
    ) -> None:
        """The turn is done. Triggers of services that fail count once those are well."""
        with self.lock:
            now = self._wall()
            if self._taken is not None:
                self.waits.observe(self._clock() - self._taken)
            self._taken = None
            self.updated = now
            for family in families:
                self.turns[family].observe(seconds)
                kind = self.full_turns if full else self.partial_turns
                kind[family].observe(seconds)
            unfinished = []
            for one in (*self._unfinished, *triggers):
                if one.service in failing:
                    unfinished.append(one)
                else:
                    for kind in (self.programming, self.fine):
                        kind[one.family].observe(max(0.0, now - one.time))
            self._unfinished = unfinished[-_MOST_UNFINISHED:]

    def health(self) -> Health:
        """Healthy until a change has waited for too long; and before the first full state."""
        with self.lock:
            waiting = [at for at in (self._waiting, self._taken) if at is not None]
            late = bool(waiting) and self._clock() - min(waiting) >= self._stale
            return Health(self.updated is None or not late, self.updated)
