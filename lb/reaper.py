"""Ends UDP sockets that would go on talking to nobody.

A connected UDP socket is translated once; when its backend leaves the service, or when it was
connected before the service was there, only its owner can connect it again, and learns by
ECONNABORTED that it must. Runs beside the reconciler, in the namespaces of all processes below
the cgroup. Not for TCP: established connections to a backend that goes are its own business.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from bpf import netns, sockdiag
from bpf.layout import Peer
from lb.address import Address, Family, family, show_port
from lb.histogram import Histogram
from lb.logs import V4
from lb.progress import TURN_BOUNDS

log = logging.getLogger("tidegate.reaper")

Place = tuple[bytes, int]
"""Address and port that a socket may be connected to."""


class Work(NamedTuple):
    """Where to look. `everywhere`: at every socket, once after a start."""

    backends: frozenset[Place] = frozenset()
    """A backend left: its sockets are ended, but not those of another that is still there."""
    frontends: frozenset[Place] = frozenset()
    """A service is translated now: who is connected to its own address is not."""
    everywhere: bool = False

    @property
    def families(self) -> Collection[Family]:
        """Those of the sockets that are looked for."""
        if self.everywhere:
            return tuple(Family)
        return {family(Address(address)) for address, _ in self.backends | self.frontends}


class Rounds:
    """What the rounds did, by family. Whoever looks at it holds `lock`."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.ended = dict.fromkeys(Family, 0)
        """Sockets ended so far."""
        self.durations = {one: Histogram(TURN_BOUNDS) for one in Family}
        """Seconds that a round took; one for both families counts for each."""

    def end(self, of: Family) -> None:
        """One more socket is ended."""
        with self.lock:
            self.ended[of] += 1

    def done(self, families: Collection[Family], seconds: float) -> None:
        """One more round is over, which looked for sockets of these."""
        with self.lock:
            for one in families:
                self.durations[one].observe(seconds)


class Reaper:
    """A thread of its own.

    `map_fd` is the map `connected`; `serves` tells whether a socket's peer still is a backend of
    the service that it asked for; `clock` is in seconds.
    """

    def __init__(
        self,
        cgroup: Path,
        map_fd: int,
        serves: Callable[[Peer], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cgroup, self._map_fd, self._serves = cgroup, map_fd, serves
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name="reaper", daemon=True)
        self._clock = clock
        self.rounds = Rounds()
        self.error = ""
        """Why the last round failed; empty if it did not."""

    @property
    def ended(self) -> int:
        """Sockets ended so far."""
        with self.rounds.lock:
            return sum(self.rounds.ended.values())

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def give(self, work: Work) -> None:
        """Returns at once."""
        if any(work):
            self._queue.put(work)

    def _run(self) -> None:
        while True:
            self._round(_merged([self._queue.get(), *_drained(self._queue)]))

    def _round(self, work: Work) -> None:
        began = self._clock()
        try:
            places = netns.of_cgroup(self._cgroup)
        except OSError as error:
            self.error = str(error)
            return
        self.error = ""
        for place in places.values():
            try:
                with netns.entered(place.path):
                    self._visit(work, place.processes)
            except OSError as error:
                if place.path.exists():
                    self.error = str(error)
                    log.warning("could not look for stale UDP sockets: %s", error)
        self.rounds.done(work.families, self._clock() - began)

    def _visit(self, work: Work, processes: Sequence[int]) -> None:
        """One namespace, which this thread has entered."""
        suspects = []
        for one in sockdiag.with_peer():
            place = (one.address, one.port)
            if place in work.frontends:
                self._end(one, "its service is there now")
            elif work.everywhere or place in work.backends:
                suspects.append(one)
        if not suspects:
            return
        peers = sockdiag.peers(self._map_fd, [one.inode for one in suspects], processes)
        for one in suspects:
            peer = peers.get(one.inode)
            if peer is not None and not self._serves(peer):
                self._end(one, "its backend is gone")

    def _end(self, one: sockdiag.Socket, reason: str) -> None:
        if sockdiag.destroy(one):
            address = Address(one.address)
            self.rounds.end(family(address))
            place = show_port(address, one.port)
            log.log(V4, "UDP socket is ended", extra={"backend": place, "reason": reason})


def _drained(queued: queue.SimpleQueue[Work]) -> list[Work]:
    found: list[Work] = []
    while True:
        try:
            found.append(queued.get_nowait())
        except queue.Empty:
            return found


def _merged(works: Sequence[Work]) -> Work:
    return Work(
        frozenset().union(*[work.backends for work in works]),
        frozenset().union(*[work.frontends for work in works]),
        any(work.everywhere for work in works),
    )
