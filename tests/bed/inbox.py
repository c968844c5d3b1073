"""An inbox that remembers what a source delivered, and on which a test can wait.

Waiting is for a condition with a deadline, woken by each delivery; nothing here sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Event, Thread

from lb.model import Change, Key
from lb.sources import Report, Source

DEADLINE = 10.0
"""Seconds; generous, since only a failing test waits that long."""


class RecordingInbox:
    """Keeps the present objects, all changes in order, the reports, and the time of each change."""

    def __init__(self) -> None:
        self._news = Condition()
        self.objects: dict[Key, Change] = {}
        self.changes: list[Change] = []
        self.reports: list[Report] = []
        self.is_synced = False
        self.last_delivery = 0.0

    def changed(self, changes: Sequence[Change]) -> None:
        """Take changes."""
        with self._news:
            self.last_delivery = time.monotonic()
            self.changes += changes
            for change in changes:
                if change.value is None and not change.refused:
                    self.objects.pop(change.key, None)
                else:
                    self.objects[change.key] = change
            self._news.notify_all()

    def synced(self) -> None:
        """Take the end of the first full state."""
        with self._news:
            self.is_synced = True
            self._news.notify_all()

    def report(self, report: Report) -> None:
        """Take the source's state."""
        with self._news:
            self.reports.append(report)
            self._news.notify_all()

    @property
    def names(self) -> set[str]:
        """The present objects with a value, as `Service default/web`."""
        return {str(key) for key, change in self.objects.items() if change.value is not None}

    @property
    def error(self) -> str:
        """The last reported error."""
        return self.reports[-1].error if self.reports else ""

    @property
    def problems(self) -> list[str]:
        """The last reported problems, one text each."""
        found = self.reports[-1].problems if self.reports else ()
        return [f"{one.subject}: {one.reason}" for one in found]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds. Raises AssertionError at the deadline."""
        with self._news:
            held = self._news.wait_for(condition, DEADLINE)
        assert held, f"not seen: {self.names}, synced {self.is_synced}, {self.reports[-1:]}"


@contextmanager
def running(source: Source) -> Iterator[RecordingInbox]:
    """The source at work in a thread of its own; ended with the block."""
    inbox, stop, failures = RecordingInbox(), Event(), list[BaseException]()

    def run() -> None:
        try:
            source.run(inbox, stop)
        except BaseException as error:  # noqa: BLE001 - shown by the test, whatever it is
            failures.append(error)

    thread = Thread(target=run, name="source under test")
    thread.start()
    try:
        yield inbox
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert not failures, failures
    assert not thread.is_alive(), "the source did not stop"
