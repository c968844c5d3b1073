"""What the threads of one source say to the inbox as one: when all is there, and how it fares."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from lb.model import Refused
from lb.sources import Inbox, Report

log = logging.getLogger("tidegate.source")


class Gate:
    """Says `synced` once: when all of `needed` is listed, and `wished` is or `patience` s passed.

    What is only wished for (the own Node: the first plan is right at once with its zone and
    addresses) must not keep a node from serving when the server does not show it.
    """

    def __init__(
        self, inbox: Inbox, *, needed: Iterable[str], wished: Iterable[str], patience: float
    ) -> None:
        self._inbox = inbox
        self._needed, self._wished = set(needed), set(wished)
        self._lock = threading.Lock()
        self._passed = False
        self._timer = threading.Timer(patience, self._pass)
        self._timer.daemon = True

    def listed(self, name: str) -> None:
        """A complete list is delivered; only the first of each name counts."""
        with self._lock:
            needed = bool(self._needed)
            self._needed.discard(name)
            self._wished.discard(name)
            if self._needed:
                return
            if needed and self._wished:
                self._timer.start()
            elif not self._wished:
                self._timer.cancel()
        if not self._wished:
            self._pass()

    def need(self, name: str) -> None:
        """Wait for that list, too, unless all that was needed so far is there."""
        with self._lock:
            if self._needed:
                self._needed.add(name)

    @property
    def has_passed(self) -> bool:
        """Is `synced` said?"""
        return self._passed

    def close(self) -> None:
        """Say nothing from here on."""
        with self._lock:
            self._passed = True
        self._timer.cancel()

    def _pass(self) -> None:
        with self._lock:
            if self._passed:
                return
            self._passed = True
        self._inbox.synced()


class Faring:
    """Joins the state of all resources into one report; equal reports are not repeated."""

    def __init__(self, inbox: Inbox, kind: str, location: str) -> None:
        self._inbox = inbox
        self._errors: dict[str, str] = {}
        self._problems: dict[str, tuple[Refused, ...]] = {}
        self._lock = threading.Lock()
        self._last = Report(kind, location)
        inbox.report(self._last)

    def tell(self, name: str, error: str, problems: tuple[Refused, ...]) -> None:
        """How the resource of that name fares now; `error` is empty or one line."""
        with self._lock:
            if (error, problems) == (self._errors.get(name, ""), self._problems.get(name, ())):
                return
            self._errors[name], self._problems[name] = error, problems
            report = self._last._replace(
                error=_join(self._errors),
                problems=tuple(one for found in self._problems.values() for one in found),
            )
            if report != self._last:
                self._log(report)
                self._last = report
                self._inbox.report(report)

    def _log(self, report: Report) -> None:
        if report.error and report.error != self._last.error:
            where = {"source": report.location, "err": report.error}
            log.warning("Source cannot be read", extra=where)
        elif self._last.error and not report.error:
            log.info("Source works again", extra={"source": report.location})
        for problem in set(report.problems) - set(self._last.problems):
            what = {"object": problem.subject, "reason": problem.reason}
            log.warning("Left out", extra=what)


def _join(errors: dict[str, str]) -> str:
    """Each error once, after the names of those that have it."""
    names: dict[str, list[str]] = {}
    for name, error in sorted(errors.items()):
        if error:
            names.setdefault(error, []).append(name)
    return "; ".join(f"{', '.join(found)}: {error}" for error, found in names.items())
