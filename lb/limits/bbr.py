"""BBR as the congestion control of pods' TCP connections, on demand.

A program of the cgroup sets it for each connection that begins; no sysctl is touched, so taking
the program off is all there is to restore. A connection keeps what it began with.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from bpf.link import attach
from bpf.module import CompileError
from bpf.pins import Pins
from bpf.texts import BBR, POD_BBR
from lb.config import Settings

log = logging.getLogger("tidegate.bandwidth")

CONSTANTS = {"HAVE_SET_RETVAL": "0"}
"""No program of bandwidth makes use of it."""
MISSING = "not in this kernel (tcp_bbr)"


def is_there() -> bool:
    """Can this kernel do it? Asking loads the module (tcp_cong.c, tcp_set_congestion_control)."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        return True
    return False


class Bbr:
    """The program on the cgroup, or not."""

    def __init__(self, settings: Settings, pins: Pins, told: Callable[[], None]) -> None:
        self._wanted, self._cgroup, self._pins = settings.pod_bbr, settings.cgroup, pins
        self.programs = pins.place(BBR, CONSTANTS)
        self._fault, self._told = "not attached yet", told

    def put(self) -> None:
        """Sees to it, and says what is wrong."""
        try:
            fault = self._put()
        except (OSError, CompileError) as error:
            fault = str(error)
        if fault:
            log.warning("BBR for pods: %s", fault)
        if fault != self._fault:
            self._fault = fault
            self._told()

    def _put(self) -> str:
        if not self._wanted:
            (self._pins.links / POD_BBR.name).unlink(missing_ok=True)
            return ""
        if not is_there():
            return MISSING
        self._pins.compile([BBR], CONSTANTS).finish()
        attach(POD_BBR, self.programs, self._pins.links, self._cgroup)
        return ""

    def feature(self) -> dict[str, dict[str, str]]:
        """The entry in `status`; none where nobody asked."""
        if not self._wanted:
            return {}
        good = {"state": "on"}
        return {"pod-bbr": {"state": "off", "reason": self._fault} if self._fault else good}
