"""Takes what a source delivers before anybody is there to apply it, and passes it on in order.

A start compiles, and loads half of the agent; its source can read meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from lb.model import Change
from lb.sources import Inbox, Report, Source


class Letterbox:
    """An `Inbox` that leads to another one as soon as that is there."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[Callable[[Inbox], None]] = []
        self._inbox: Inbox | None = None

    def lead_to(self, inbox: Inbox) -> None:
        """Deliver what came so far, and from now on everything at once."""
        with self._lock:
            for deliver in self._kept:
                deliver(inbox)
            self._kept.clear()
            self._inbox = inbox

    def changed(self, changes: Sequence[Change]) -> None:
        """As the other one's."""
        self._pass_on(lambda inbox: inbox.changed(changes))

    def synced(self) -> None:
        """As the other one's."""
        self._pass_on(lambda inbox: inbox.synced())

    def report(self, report: Report) -> None:
        """As the other one's."""
        self._pass_on(lambda inbox: inbox.report(report))

    def _pass_on(self, deliver: Callable[[Inbox], None]) -> None:
        with self._lock:
            if self._inbox is None:
                self._kept.append(deliver)
            else:
                deliver(self._inbox)


def reading(source: Source, stop: Event) -> Letterbox:
    """Runs the source in a thread of its own, until `stop`; where it delivers to."""
    letterbox = Letterbox()
    Thread(target=source.run, args=(letterbox, stop), name="source", daemon=True).start()
    return letterbox
