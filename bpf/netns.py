"""Runs something in another network namespace, in this thread only (setns(2)).

Not for starting programs there: only for opening a socket, which stays in the namespace it
was opened in.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14


def cookie() -> int:
    """The cookie of this thread's network namespace, never reused. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """This thread is in the network namespace at `path` meanwhile. Raises OSError."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(path, os.O_RDONLY)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(here)
    finally:
        os.close(here)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


class Inhabited(NamedTuple):
    """A network namespace and the processes in it; `path` leads into it while one lives."""

    path: Path
    processes: list[int]


def of_cgroup(cgroup: Path) -> dict[int, Inhabited]:
    """The network namespaces of all processes below a cgroup, by inode."""
    found: dict[int, Inhabited] = {}
    for folder, _, _ in os.walk(cgroup):
        for pid in _processes(Path(folder)):
            path = Path(f"/proc/{pid}/ns/net")
            try:
                inode = path.stat().st_ino
            except OSError:
                continue  # it just ended
            found.setdefault(inode, Inhabited(path, [])).processes.append(pid)
    return found


def _processes(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []  # the cgroup just went, or is a threaded one
