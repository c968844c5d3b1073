"""When to take over from kube-proxy: as soon as it has ended, and again whenever rules are back.

An operator may install Tidegate first and take kube-proxy off afterwards, or start it again by
mistake. Not for what is removed, nor how: that is `lb.takeover`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lb import takeover
from lb.errors import KernelRefused
from lb.takeover import Serves

log = logging.getLogger("tidegate.takeover")

PROGRAM = "kube-proxy"


class Timing(NamedTuple):
    """All times, in seconds."""

    rest: float = 2.0
    """Whoever was in the midst of a connect when our programs came still sends its first packet to
    the service, and needs kube-proxy's rules once more."""
    look: float = 60.0
    """Between two looks for rules; and the first pause before those that came back go again."""
    process: float = 2.0
    """Between two looks whether kube-proxy still runs."""
    longest: float = 3600.0
    """Somebody out of sight who puts rules back again and again is not fought with."""


class Handover:
    """A thread that looks, until `stop`. `told` is called when what `feature` says is another."""

    def __init__(
        self,
        serves: Serves,
        stop: threading.Event,
        told: Callable[[], None],
        timing: Timing | None = None,
    ) -> None:
        self._serves, self._stop, self._told = serves, stop, told
        self._timing = timing or Timing()
        self._reason = "about to look for kube-proxy's rules"
        self._is_known = False
        self._took, self._due, self._pause = False, 0.0, self._timing.look

    def start(self) -> None:
        """Begin; the first full state is in force."""
        threading.Thread(target=self.run, name="handover", daemon=True).start()

    def feature(self) -> dict[str, Any]:
        """The entry in `status`."""
        if not self._reason:
            return {"state": "on"}
        return {"state": "degraded" if self._is_known else "off", "reason": self._reason}

    def run(self) -> None:
        """Look, and take over when it is time; raises nothing."""
        if self._stop.wait(self._timing.rest):
            return
        while True:
            process = 0
            try:
                process = self._look(time.monotonic())
            except (KernelRefused, OSError) as error:
                self._say(f"could not look for kube-proxy's rules: {error}")
            if self._waited(process):
                return

    def _look(self, now: float) -> int:
        """One look; the process of a kube-proxy whose end is waited for, or 0."""
        if not takeover.traces():
            if self._took:
                self._say("")
                self._pause = self._timing.look
                return 0
        elif process := running():
            self._say(
                f"kube-proxy still runs on this node (process {process}): its rules go once it has "
                "ended; stop it, or give --kube-proxy-rules keep"
            )
            self._took, self._pause = False, self._timing.look
            return process
        if not self._took or now >= self._due:
            self._take(now)
        return 0

    def _take(self, now: float) -> None:
        again, self._took = self._took, True
        removed = takeover.remove_rules(self._serves)
        _log(removed)
        servers = takeover.remove_servers(self._stop)
        _log([*servers, *takeover.remove_device(self._stop)])
        if self._stop.is_set():
            return  # the next agent goes on from here
        self._pause = min(2 * self._pause, self._timing.longest) if again else self._timing.look
        if again and (removed or servers):
            self._say(
                "kube-proxy's rules were back, though it is not seen to run; they are removed, and "
                f"if they come again, after {self._pause:.0f} s: stop who makes them, or give "
                "--kube-proxy-rules keep"
            )
        else:
            self._say("")
        self._due = now + self._pause

    def _waited(self, process: int) -> bool:
        """Until the next look, or the end of the process; True: told to stop."""
        until = time.monotonic() + self._timing.look
        step = self._timing.process if process else self._timing.look
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(step, left)):
                return True
            if process and process != running([process]):
                return False
        return self._stop.is_set()

    def _say(self, reason: str) -> None:
        known, self._is_known = self._is_known, True
        if known and reason == self._reason:
            return
        if reason:
            log.error("%s", reason)
        elif known and self._reason:
            log.info("kube-proxy's rules are gone")
        self._reason = reason
        self._told()


def _log(lines: Iterable[str]) -> None:
    for line in lines:
        log.info("kube-proxy left this, and it is gone now: %s", line)


def running(among: Iterable[int] | None = None) -> int:
    """The process of a kube-proxy in this network namespace; 0: none is seen."""
    own = Path("/proc/self/ns/net").readlink()
    if among is None:
        among = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    return next((one for one in among if _is_one(Path(f"/proc/{one}"), own)), 0)


def _is_one(process: Path, own: Path) -> bool:
    """By its program, since Tidegate's own link of that name is run by Python."""
    try:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        return program == PROGRAM and (process / "ns/net").readlink() == own
    except OSError:  # it has ended, or is nobody's to look at
        return False
