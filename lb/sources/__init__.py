"""Where the wishes come from: a directory of manifests, or a Kubernetes API server.

A source turns outside objects into `lb.model` values and delivers them as changes; it never
learns what became of them, since it could do nothing useful with an error of the kernel. All
sources deliver into one `Inbox`, from a thread of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Event, Lock
from typing import NamedTuple, Protocol

from lb.histogram import Histogram
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


class Api(Protocol):
    """The API server, where it is the source: for events, and for how it was asked."""

    @property
    def location(self) -> str:
        """The server's URL."""

    @property
    def asked(self) -> Asked:
        """All requests so far."""

    def send(self, method: str, path: str, body: bytes) -> None:
        """Create by POST, or change by PATCH, from JSON. Raises Failed."""


class Asked:
    """Requests to the API server, counted. For any thread.

    As client-go counts them: `rest_client_requests_total`, `rest_client_request_duration_seconds`.
    """

    BOUNDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
    """Upper bounds of durations, in seconds."""

    def __init__(self) -> None:
        self.lock = Lock()
        """Guards everything here."""
        self.codes: Counter[tuple[str, int]] = Counter()
        """By method and HTTP status; 0 where none came."""
        self.durations: dict[str, Histogram] = {}
        """By method, until the answer's headers."""

    def note(self, method: str, code: int, seconds: float) -> None:
        """One more."""
        with self.lock:
            self.codes[method, code] += 1
            self.durations.setdefault(method, Histogram(self.BOUNDS)).observe(seconds)
