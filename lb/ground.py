"""What an agent stands on: its folder, locked, with the tables in it, and programs on the way.

First of all that an agent does, with few imports: the compiler works while the rest of the agent is
loaded and its source reads. Not for what is in the tables, nor for attaching anything.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import signal
import socket
from pathlib import Path

from bpf.module import CompileError
from bpf.pins import Pins, mount
from bpf.probe import has_set_retval
from bpf.texts import LB, POD, SOCK, XDP
from lb import builds, fleeting
from lb.config import Settings
from lb.errors import BadInput, KernelRefused

ENDING = (signal.SIGTERM, signal.SIGINT)
COLLECT_EVERY = (50_000, 50, 50)
"""Thresholds of the garbage collector. At a start objects come by the hundred thousand, and stay;
with Python's own 700 it walks them again and again, and finds nothing."""
_M_ARENA_MAX = -8  # mallopt(3)


class Ground:
    """One node's folder in the hands of this process, until it ends. Raises KernelRefused."""

    def __init__(self, settings: Settings) -> None:
        # Before any thread starts: they all inherit it, so that one alone takes them.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        gc.set_threshold(*COLLECT_EVERY)
        # One heap for all threads: each of glibc's own would keep its peak.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        self._lock, self.pins_note = _locked(settings.bpffs)
        self._alone = alone_on_devices(
            "another agent serves this network namespace, with another --bpffs: stop it first, or "
            "give this one a namespace of its own"
        )
        self.pins = Pins(settings.bpffs, settings.program_cache)
        texts = [SOCK, LB]
        texts += [POD] if settings.pod_devices else []
        texts += [XDP] if settings.xdp != "off" else []
        others = builds.texts(settings.detection)
        texts += others if settings.pod_devices else others[:1]
        defines = {"HAVE_SET_RETVAL": "1" if has_set_retval() else "0"}
        try:
            self.pins.make(settings.sizes)
            self._building = self.pins.compile(texts, defines)
        except OSError as error:
            raise KernelRefused(f"--bpffs {settings.bpffs}: {error}; see tidegate check") from error
        self.programs = self._building.folders
        """Where those of each text are, once `await_programs` comes back."""

    def await_programs(self) -> None:
        """Until all are compiled and pinned; for any thread. Raises KernelRefused."""
        try:
            self._building.finish()
        except (CompileError, OSError) as error:
            raise KernelRefused(f"programs: {error}; see tidegate check") from error


def _locked(folder: Path) -> tuple[int, str]:
    """Makes the folder, and holds a lock on it for as long as the process lives.

    And what is wrong with the mount, if anything.
    """
    try:
        note = _FLEETING.format(folder) if mount(folder) and fleeting.goes_with_us(folder) else ""
        return exclusive(folder, "another agent runs on it"), note
    except OSError as error:
        raise KernelRefused(f"--bpffs {folder}: {error.strerror or error}") from error


_FLEETING = (
    "the bpffs of {} is mounted for this container alone and goes with it, and so does the data "
    "path: mount one on the node (mount -t bpf bpf /sys/fs/bpf) and restart this pod, or give the "
    "volume mountPropagation Bidirectional"
)


def alone_on_devices(otherwise: str) -> socket.socket:
    """To be held while programs are put on devices: two agents would take each other's off.

    An abstract name belongs to the network namespace, as devices do (unix(7)). Raises BadInput,
    which says `otherwise`.
    """
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind("\0tidegate-agent")
    except OSError as error:
        name.close()
        raise BadInput(otherwise) from error
    return name


def exclusive(bpffs: Path, otherwise: str) -> int:
    """A lock on the folder, for as long as the descriptor is open. Raises BadInput, OSError."""
    lock = os.open(bpffs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise BadInput(f"--bpffs {bpffs}: {otherwise}") from error
    return lock
