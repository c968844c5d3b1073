"""What one cluster owns on this machine, by name: lock, folder, cgroup, namespaces, mounts.

Everything is found again by the cluster's name alone, so a cluster can be taken down half built,
or by somebody else after its owner was killed. The owner holds a file lock for as long as it
lives: the kernel lets go of it when the process dies, whatever its process id is used for next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from tests.bed import cgroup
from tests.bed.process import BedError, run

RUN = Path("/run")
NAMESPACES = RUN / "netns"
_LOCK = ".lock"
_KEPT = "kept"
_PREFIX = "tidegate-tg"


class Claim:
    """The names of a cluster's belongings. `name` is short, unique, and safe in a file name."""

    def __init__(self, name: str) -> None:
        mount = cgroup.mount_point()
        if mount is None:
            raise BedError("no cgroup v2 hierarchy is mounted")
        self.name = name
        self.directory = RUN / f"tidegate-{name}"
        self.cgroup = mount / f"tidegate-{name}"
        self.bpffs = self.directory / "bpf"
        self._workshop = self.cgroup / "bed"
        self._lock = RUN / f"tidegate-{name}{_LOCK}"
        self._descriptor = -1

    def namespace(self, host: str) -> str:
        """The network namespace of a host of this cluster."""
        return f"{self.name}-{host}"

    def take(self) -> None:
        """Own the name from here on; raises BedError when another cluster has it."""
        if not self._try_lock(create=True):
            raise BedError(f"a cluster {self.name} is there already")
        if self.directory.exists():
            self.release()
            raise BedError(f"a cluster {self.name} was kept: take it down first")
        self._workshop.mkdir(parents=True)

    def build(self, *argv: str, stdin: str = "") -> None:
        """Run a program that adds to the cluster: in its cgroup, so that removal ends it first."""
        run(cgroup.inside(self._workshop, *argv), stdin=stdin)

    def enter(self, host: str, script: str) -> None:
        """Run a script of `tests.bed.network` in a host's namespace."""
        namespace = f"--net={NAMESPACES / self.namespace(host)}"
        self.build("nsenter", namespace, "/bin/sh", "-e", stdin=script)

    def take_from_the_dead(self) -> bool:
        """Own what a dead owner left; False: its owner lives, or somebody else was faster."""
        return self._try_lock(create=False)

    @property
    def kept(self) -> bool:
        """Whether its owner left it up on purpose."""
        return (self.directory / _KEPT).exists()

    def keep(self) -> None:
        """Leave everything in place when the owner ends, until it is removed by name."""
        (self.directory / _KEPT).touch()

    def remove(self) -> None:
        """Take down all there is under this name; again is harmless. Needs the lock."""
        cgroup.destroy(self.cgroup)
        # An interrupted removal may still be at work beside this one, so a failure of these two
        # means nothing yet; what is left makes the end of it fail.
        if names := self._namespaces():
            commands = "".join(f"netns del {name}\n" for name in names)
            run(["ip", "-force", "-batch", "-"], stdin=commands, check=False)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for path in [line.split()[1] for line in reversed(mounts)]:
            if Path(path).is_relative_to(self.directory):
                run(["umount", path], check=False)
        if names := self._namespaces():
            raise BedError(f"cannot remove the namespaces {' '.join(names)}")
        with suppress(FileNotFoundError):
            shutil.rmtree(self.directory)
        self._lock.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _namespaces(self) -> list[str]:
        return [path.name for path in NAMESPACES.glob(f"{self.name}-*")]

    def _try_lock(self, *, create: bool) -> bool:
        """Lock the name's file; False when it is held, or gone by the time it was locked."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(descriptor).st_ino == self._lock.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


def claims() -> list[Claim]:
    """Every cluster on this machine, alive, kept or left over."""
    locks = RUN.glob(f"{_PREFIX}*{_LOCK}")
    return [Claim(path.name.removeprefix("tidegate-").removesuffix(_LOCK)) for path in locks]


def sweep() -> list[str]:
    """Remove what dead owners left; returns the names of those clusters."""
    dead = [claim for claim in claims() if not claim.kept and claim.take_from_the_dead()]
    for claim in dead:
        claim.remove()
    return [claim.name for claim in dead]
