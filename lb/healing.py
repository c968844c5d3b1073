"""The slow background check: looks at one thing after another, and counts what had to be put back.

It takes a bounded share of one CPU, in pieces so short that no change waits for it. Not for what
is looked at, nor how it is put right: that is `lb.repairs` and `lb.mending`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

log = logging.getLogger("tidegate.healing")

SHARE = 0.04
"""Of one CPU, at most."""
PIECE_SECONDS = 0.0005
"""How long a change may have to wait for a piece."""
LINES = 16
"""Of one kind that a round logs; then their number."""


class Check(NamedTuple):
    """One thing to look at.

    `mend` works in steps; each yields a line, what it put back, or "" for nothing. Between two
    steps the lock may be given up. A step may raise `errors`; the round goes on with the next
    check.
    """

    what: str
    mend: Callable[[], Iterator[str]]
    lock: AbstractContextManager[object]
    errors: tuple[type[Exception], ...] = (OSError,)


class Healer:
    """A thread that makes rounds. `clock` and `cpu`, the thread's own time, are in seconds.

    A round begins `interval` seconds after the one before it did, or when that one is through.
    `told` is called after a check that had to put anything back, `pause` waits so many seconds.
    """

    def __init__(  # noqa: PLR0913
        self,
        checks: Sequence[Check],
        interval: float,
        *,
        told: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.repairs = Counter({check.what: 0 for check in checks})
        """How many things were put back, by `Check.what`."""
        self._checks, self._interval = checks, interval
        self._clock, self._cpu, self._told = clock, cpu, told
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._errors: dict[str, str] = {}

    def start(self) -> None:
        """Begin, unless the interval is 0."""
        if self._interval:
            threading.Thread(target=self._run, name="healing", daemon=True).start()

    def stop(self) -> None:
        """The round that runs is the last."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            begun = self._clock()
            self.round()
            self._pause(max(0.0, begun + self._interval - self._clock()))

    def round(self) -> None:
        """Look at everything once."""
        for check in self._checks:
            lines: list[str] = []
            error = ""
            try:
                for line in self._paced(check):
                    lines.append(line)
                    self.repairs[check.what] += 1
            except check.errors as problem:
                error = str(problem)
            self._tell(check.what, lines, error)

    def _paced(self, check: Check) -> Iterator[str]:
        """The lines of a check that take no more than our share of a CPU."""
        steps = check.mend()
        more = True
        while more and not self._stopped.is_set():
            lines: list[str] = []
            with check.lock:
                begun, used = self._clock(), self._cpu()
                more = False
                for line in steps:
                    if line:
                        lines.append(line)
                    if self._clock() - begun >= PIECE_SECONDS:
                        more = True
                        break
                # By CPU time: on a busy machine a step takes long, and costs no more.
                spent = self._cpu() - used
            yield from lines
            self._pause(spent * (1 / SHARE - 1))

    def _tell(self, what: str, lines: Sequence[str], error: str) -> None:
        for line in lines[:LINES]:
            log.warning("put back: %s", line)
        if len(lines) > LINES:
            log.warning("put back: %d more of %s", len(lines) - LINES, what)
        if error and self._errors.get(what) != error:
            log.warning("could not check %s: %s", what, error)
        self._errors[what] = error
        if lines:
            self._told()
