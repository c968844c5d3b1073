"""What nobody foresaw, in any thread but the main one, ends the agent with one line.

A thread that died alone would leave an agent that looks well and follows nothing any more. The data
path stays, and a supervisor starts the agent anew. Not for the threads of single requests, whose
servers tell their clients.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from lb.errors import TidegateError, Unforeseen

_PLACES = 6
"""Calls that the line names, the innermost first."""


class Guard:
    """Takes over `threading.excepthook`. What comes before `lead_to` waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[TidegateError], None] | None = None
        self._first: TidegateError | None = None
        threading.excepthook = self._met

    def lead_to(self, end: Callable[[TidegateError], None]) -> None:
        """Call `end` with the first such error, at once or when it comes, and with no other."""
        with self._lock:
            self._end = end
            first = self._first
        if first is not None:
            end(first)

    def _met(self, met: threading.ExceptHookArgs) -> None:
        if met.exc_type is SystemExit:
            return
        name = "without a name" if met.thread is None else met.thread.name
        text = f"thread {name} ended by {told(met.exc_value or met.exc_type())}"
        error = Unforeseen(f"{text}; this is a bug: report it with this line")
        with self._lock:
            if self._first is not None:
                return
            self._first = error
            end = self._end
        if end is not None:
            end(error)


def told(error: BaseException) -> str:
    """An exception and where it came from, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    places = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames[:_PLACES]]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{said} ({', '.join(places)})" if places else said
