"""What clients of the bed saw, told to whoever watches: so that each probe is a test of more.

Not for clients that go on asking (`Talk`): of those nobody can say when they saw what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from tests.bed.host import Host


class Probe(NamedTuple):
    """One connection, or one datagram and its answer."""

    host: Host
    protocol: str
    """TCP or UDP."""
    address: str
    port: int
    source: str = ""
    """The client's own address, if it chose one; "": the kernel did."""
    source_port: int = 0
    """0: unknown."""
    errno: str = ""
    """Its name, or "" where somebody answered."""
    said: str = ""
    """By the server."""


class Watcher(Protocol):
    """Raises what a test is to see."""

    def begin(self, host: Host) -> None:
        """A probe is about to start there."""

    def saw(self, probe: Probe) -> None:
        """One of its rows. All come after its end."""


_watchers: list[Watcher] = []


def watch(watcher: Watcher) -> None:
    """It hears of all probes from now on."""
    _watchers.append(watcher)


def unwatch(watcher: Watcher) -> None:
    """It hears no more; harmless if it did not."""
    if watcher in _watchers:
        _watchers.remove(watcher)


@contextmanager
def unwatched() -> Iterator[None]:
    """Nobody hears of probes meanwhile: while things change, nobody can say what one had to see."""
    away, _watchers[:] = [*_watchers], []
    try:
        yield
    finally:
        _watchers[:] = away


@contextmanager
def watched(host: Host) -> Iterator[Callable[[Probe], None]]:
    """A probe of this host: whatever is said in the block is told at its end."""
    rows: list[Probe] = []
    for watcher in _watchers:
        watcher.begin(host)
    yield rows.append
    for watcher in _watchers:
        for row in rows:
            watcher.saw(row)
