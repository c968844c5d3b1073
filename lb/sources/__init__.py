"""Where the wishes come from: a directory of manifests, or a Kubernetes API server.

A source turns outside objects into `lb.model` values and delivers them as changes; it never
learns what became of them, since it could do nothing useful with an error of the kernel. All
sources deliver into one `Inbox`, from a thread of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import NamedTuple, Protocol

from lb.model import Change, Refused


class Report(NamedTuple):
    """How a source fares: replaces the previous report of that source as a whole.

    `error` is empty while all is well, else one line. `problems` are faults that belong to no
    single object (a file that does not parse, an object without a name).
    """

    kind: str
    """`manifests` or `kubernetes`."""
    location: str
    """The directory, or the server's URL."""
    error: str = ""
    problems: tuple[Refused, ...] = ()


class Inbox(Protocol):
    """Takes what sources deliver; every method may be called from any thread and never blocks."""

    def changed(self, changes: Sequence[Change]) -> None:
        """Objects that changed, in the order of their changes."""

    def synced(self) -> None:
        """The first full state has been delivered; until then nothing may be removed."""

    def report(self, report: Report) -> None:
        """The source's own state changed."""


class Source(Protocol):
    """One origin of objects."""

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set; survives every failure of the outside world."""
