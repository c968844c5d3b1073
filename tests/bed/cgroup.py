"""A subtree of the cgroup v2 hierarchy: found, made, emptied and removed.

Works below a folder of its own only; the root and the folders of others are never touched.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path

from tests.bed.process import BedError


def mount_point() -> Path | None:
    """Where cgroup v2 is mounted: below a hybrid tree or on its own; None: nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(path)
    return None


def inside(group: Path, *argv: str) -> list[str]:
    """The command line that runs `argv` in a cgroup, under the process id it starts with.

    When the group is gone by then, the program never starts.
    """
    return ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(group / "cgroup.procs"), *argv]


def destroy(group: Path, *, timeout: float = 10.0) -> None:
    """Kill every process in `group` and below, then remove it; a group that is gone is fine.

    Raises BedError when it is not empty after `timeout` seconds.
    """
    with suppress(FileNotFoundError):
        (group / "cgroup.kill").write_text("1")
        _await_empty(group, timeout)
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _await_empty(group: Path, timeout: float) -> None:
    """Wait for `populated 0` in cgroup.events, which the kernel announces by POLLPRI."""
    deadline = time.monotonic() + timeout
    with (group / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            left = deadline - time.monotonic()
            if left < 0:
                raise BedError(f"{group} still holds processes after {timeout} s")
            poll.poll(left * 1000)
            events.seek(0)
