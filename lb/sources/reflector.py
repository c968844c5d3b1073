"""Follows one kind of object on an API server: list, watch from there, begin again when it must.

Knows the API's rules of conduct (pages, bookmarks, 410, 429, Retry-After; Kubernetes API concepts,
"Efficient detection of changes"), and nothing of credentials and sockets: those are a `Server`'s.
Whatever fails, what was delivered stays; a stream that ends or breaks goes on where it was.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import NamedTuple, Protocol

import msgspec

from lb.model import Change, Refused
from lb.sources import feed

log = logging.getLogger("tidegate.source")

PAGE = 500
"""Objects of one page, as kubectl asks for."""
GONE = 410
STALE = frozenset({feed.BAD_REQUEST, GONE, 504})
"""Answers to a watch that only a new list gets over: among them 504, which says that the version
asked for is not there yet, as after the server's store was put back to an older state."""
SHORT_SECONDS = 1.0
"""A watch that ends sooner, and without a word, is a failure and not a turn of the server's."""

MISSING = (403, 404)
"""How a server answers for a kind that it does not serve to us."""


class Timing(NamedTuple):
    """All times, in seconds."""

    first_pause: float = 0.4
    longest_pause: float = 30.0
    connect: float = 5.0
    answer: float = 30.0
    silence: float = 90.0
    """Of a watch, before it is given up for dead; bookmarks come about every minute."""
    watch: tuple[float, float] = (300.0, 600.0)
    """Shortest and longest turn of a watch, so that not all nodes ask anew at once."""
    node: float = 1.0
    """That the first full state waits for the own Node, once all else is there."""
    missing: float = 300.0
    """Until a kind is asked for again that the server does not serve to us."""
    peers: float = 5.0
    """From all nodes being known here until it is said: the others learn of this one, too."""


class Failed(Exception):
    """A request got no use; one line. `code`: the HTTP status, 0 without one.

    `retry_after`: seconds that the server asks for.
    """

    def __init__(self, text: str, code: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.code, self.retry_after = code, retry_after


class Answer(Protocol):
    """What a request was answered with; status 200."""

    def whole(self) -> bytes:
        """The body. Raises Failed."""

    def available(self) -> bytes:
        """Waits for more of the body, takes what is there; empty once it ended or broke."""

    def interrupt(self) -> None:
        """End a wait of another thread."""


class Server(Protocol):
    """Where the objects are."""

    def get(
        self, path: str, query: Mapping[str, str], *, patience: float
    ) -> AbstractContextManager[Answer]:
        """Ask; `patience` is the longest silence in seconds. Raises Failed."""


class Resource(NamedTuple):
    """A kind of object, and which of them are asked for. `optional`: what a server may refuse.

    `may_be_missing`: an older server does not know the kind, or its roles do not allow it.
    """

    name: str
    path: str
    version: str
    kind: str
    selectors: Mapping[str, str]
    optional: Mapping[str, str] = {}
    may_be_missing: bool = False


class Listener(NamedTuple):
    """Whom a reflector tells: of changes, of a complete list, and of how it fares.

    `missing` is told in place of `fares` of a kind that `may_be_missing`.
    """

    changed: Callable[[Sequence[Change]], None]
    listed: Callable[[], None]
    fares: Callable[[str, tuple[Refused, ...]], None]
    missing: Callable[[], None] = lambda: None


class Reflector:
    """One resource, followed by one thread."""

    def __init__(
        self, resource: Resource, server: Server, listener: Listener, timing: Timing
    ) -> None:
        self._resource, self._server = resource, server
        self._listener, self._timing = listener, timing
        self._feed = feed.Feed(resource.version, resource.kind)
        self._optional = resource.optional
        self._failures = 0
        self._missing = ""
        self._stop = Event()
        self._answer: Answer | None = None

    def run(self) -> None:
        """Follow until `stop`."""
        while not self._stop.is_set():
            try:
                if not self._feed.version:
                    self._list()
                self._watch()
            except Failed as error:
                if not self._stop.is_set():
                    self._stop.wait(self._pause_after(error))

    def stop(self) -> None:
        """End `run`, wherever it waits; called from another thread."""
        self._stop.set()
        if self._answer is not None:
            self._answer.interrupt()

    def _list(self) -> None:
        """Page by page, each delivered before the next is asked for. Raises Failed."""
        self._feed.begin()
        query = {"limit": str(PAGE)}
        while not self._stop.is_set():
            with self._ask(query, self._timing.answer) as answer:
                text = answer.whole()
            try:
                page = feed.page.decode(text)
            except msgspec.DecodeError as error:
                raise Failed(f"the answer is no list: {error}") from error
            self._deliver(self._feed.listed(page.items or ()))
            if not page.metadata.next_page:
                self._deliver(self._feed.end(page.metadata.resource_version))
                self._listener.listed()
                return
            query["continue"] = page.metadata.next_page

    def _watch(self) -> None:
        """Until the stream ends or breaks. Raises Failed."""
        low, high = self._timing.watch
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._feed.version,
            "timeoutSeconds": str(int(random.uniform(low, high))),  # noqa: S311
        }
        begin, rest = time.monotonic(), b""
        heard = False
        with self._ask(query, self._timing.silence) as answer:
            self._deliver(())
            while not self._stop.is_set() and (data := answer.available()):
                complete, newline, tail = data.rpartition(b"\n")
                if not newline:
                    rest += data
                    continue
                lines = (rest + complete).split(b"\n")
                rest = tail
                changes, status = self._feed.events(line for line in lines if line.strip())
                self._deliver(changes)
                if status is not None:
                    raise Failed(status.message, status.code)
                heard, self._failures = True, 0
        if not heard and time.monotonic() - begin < SHORT_SECONDS:
            raise Failed("the watch ends as soon as it begins")
        self._failures = 0

    @contextmanager
    def _ask(self, query: Mapping[str, str], patience: float) -> Iterator[Answer]:
        wanted = {**self._resource.selectors, **self._optional, **query}
        with self._server.get(self._resource.path, wanted, patience=patience) as answer:
            self._answer = answer
            try:
                if self._stop.is_set():  # an earlier `stop` had nothing to interrupt
                    raise Failed("stopped")
                yield answer
            finally:
                self._answer = None

    def _deliver(self, changes: Sequence[Change]) -> None:
        if changes:
            self._listener.changed(changes)
        self._fares("")

    def _fares(self, error: str) -> None:
        found = self._feed.problems.values()
        self._listener.fares(error, tuple(one for problems in found for one in problems))

    def _pause_after(self, error: Failed) -> float:
        """What to do differently next time, and in how many seconds."""
        listing = not self._feed.version
        if listing and error.code == feed.BAD_REQUEST and self._optional:
            self._optional = {}
            return 0.0
        if listing and error.code in MISSING and self._resource.may_be_missing:
            if str(error) != self._missing:
                log.info("%s: not served here: %s", self._resource.name, error)
                self._missing = str(error)
            self._listener.missing()
            return self._timing.missing * random.uniform(0.5, 1.5)  # noqa: S311
        if error.code in STALE:
            self._feed.version = ""
        if error.code == GONE:
            log.info("%s: the version is gone; listing again", self._resource.name)
        else:
            self._fares(str(error))
        timing = self._timing
        pause = min(timing.longest_pause, timing.first_pause * 2.0 ** min(self._failures, 30))
        self._failures += 1
        asked = min(timing.longest_pause, error.retry_after)
        return max(asked, pause * random.uniform(0.5, 1.5))  # noqa: S311
