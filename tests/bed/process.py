"""Programs that the bed runs: to their end, or kept beside it.

Knows nothing of namespaces and cgroups; `tests.bed.host` puts programs there.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bed.watching import unwatched

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("TIDEGATE_PATIENCE", "1"))
"""By how much every wait is longer: for emulated machines."""
POLL_SECONDS = 0.005
"""Between two looks at what the kernel has no event for (a listening socket)."""


class BedError(Exception):
    """The bed could not do what it was asked; the text holds the output of the program at fault."""


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 10.0,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, from the repository's root.

    `timeout` is in seconds. Raises BedError past it, or on a status above 0 when `check` is set.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout * PATIENCE,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        out, err = (
            text.decode() if isinstance(text, bytes) else text or ""
            for text in (error.stdout, error.stderr)
        )
        raise BedError(f"{' '.join(argv)}: not done in {timeout} s\n{out}{err}") from error
    if check and done.returncode:
        raise BedError(
            f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}{stdin}"
        )
    return done


def until(
    condition: Callable[[], bool], what: str, *, timeout: float, process: Process | None = None
) -> None:
    """Wait until `condition` holds; raises BedError after `timeout` seconds or when `process` ends.

    For states that no file descriptor announces. Where one does, wait for that. Probes that the
    condition makes are not watched: they look at what is about to change.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    with unwatched():
        while not condition():
            if process is not None and not process.running:
                raise BedError(f"{process} ended before {what}\n{process.output}")
            if time.monotonic() > deadline:
                shown = f"\n{process}:\n{process.output}" if process is not None else ""
                raise BedError(f"no {what} within {timeout} s{shown}")
            time.sleep(POLL_SECONDS)


class Process:
    """A program that runs beside the bed; its output goes to a file."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.argv = tuple(argv)
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                # A Ctrl-C at the terminal is for the bed, which ends its programs in its own order.
                process_group=0,
            )

    def __str__(self) -> str:
        return f"{' '.join(self.argv)} (process {self.pid})"

    @property
    def pid(self) -> int:
        """The process id; of the program itself, since every wrapper ends in exec."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """All it wrote so far, standard output and error."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, timeout: float = 10.0) -> int:
        """The exit status once it ended; raises BedError after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise BedError(f"{self} did not end in {timeout} s\n{self.output}") from error

    def send(self, number: signal.Signals) -> None:
        """Send a signal; harmless when it ended already."""
        self._popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, *, timeout: float = 10.0) -> int:
        """Send a signal, wait, return the exit status; harmless when it ended already."""
        if self.running:
            self._popen.send_signal(number)
        return self.wait(timeout)


def await_readable(descriptor: int, process: Process, *, timeout: float) -> bool:
    """Wait for data on a descriptor: False when the process ended first or time (s) ran out."""
    try:
        ended = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(ended, select.POLLIN)
        return descriptor in (ready for ready, _ in poll.poll(max(0.0, timeout) * 1000))
    finally:
        os.close(ended)
