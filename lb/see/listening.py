"""Listens to the data path: events out of the ring buffer while somebody wants them.

Works on the pins alone. One listener at a time, since what one has read is gone for others.
Whoever listens says so until a time not far off, and again and again: one who was killed stops
costing anything within seconds.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bpf.layout import Event, Listener
from bpf.pins import Pins
from lb.errors import BadInput

LEASE_SECONDS = 3.0
_POLL_SECONDS = 0.5


class Heard:
    """Events as they come. `lost` counts those that found no room since it began."""

    def __init__(self, pins: Pins, every: int) -> None:
        self._table = pins.open_array("listening")
        self._ring = pins.open_ring("events")
        self._every = every
        self._began = time.monotonic_ns()
        self._before = self._listener().lost
        self._extend()

    def _listener(self) -> Listener:
        return Listener.unpack(self._table.read(0))

    def _extend(self) -> None:
        self._table.store_word(0, 8, self._every)
        self._table.store_word(0, 0, time.monotonic_ns() + int(LEASE_SECONDS * 1e9))

    @property
    def lost(self) -> int:
        """Events that found no room."""
        return self._listener().lost - self._before

    def batches(self) -> Iterator[list[Event]]:
        """What came, at least twice a second, be it nothing. Raises OSError."""
        while True:
            self._extend()
            events = [Event.unpack(raw) for raw in self._ring.poll(_POLL_SECONDS)]
            yield [one for one in events if one.time >= self._began]

    def close(self) -> None:
        """Nobody listens any more."""
        self._table.store_word(0, 0, 0)
        self._ring.close()


@contextmanager
def heard(pins: Pins, *, every: int = 1) -> Iterator[Heard]:
    """Listens meanwhile; of new connections one in `every` is told. Raises BadInput, OSError."""
    lock = os.open(pins.folder / "maps", os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(
                f"--bpffs {pins.folder}: somebody else listens already; end that monitor first"
            ) from error
        listener = Heard(pins, every)
        try:
            yield listener
        finally:
            listener.close()
    finally:
        os.close(lock)
