"""A program on a terminal of its own, and the screen that its user would see.

`pyte` keeps the screen; a pseudo-terminal makes the program believe in it.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from types import TracebackType
from typing import Self

import pyte

from tests.bed.host import Host
from tests.bed.process import PATIENCE, REPOSITORY, BedError


class Terminal:
    """Runs `argv` on the host; ended with the block, as by Ctrl-C."""

    def __init__(self, host: Host, *argv: str, columns: int = 120, lines: int = 36) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        self._program = subprocess.Popen(
            host.argv(*argv),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=REPOSITORY,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)

    @property
    def lines(self) -> list[str]:
        """The screen's lines that hold anything, without the blanks at their ends."""
        return [text.rstrip() for text in self._screen.display if text.strip()]

    def until(self, text: str, *, timeout: float = 10.0) -> list[str]:
        """The screen's lines once the text is on it. Raises BedError after `timeout` seconds."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not any(text in line for line in self.lines):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise BedError("\n".join([f"no {text!r} on the screen:", *self.lines]))
        return self.lines

    def _read(self, seconds: float) -> bool:
        """Takes in what the program wrote; False: nothing came, or it ended."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            self._stream.feed(os.read(self._master, 65536))
        except OSError:  # EIO: the other end is closed
            return False
        return True

    def interrupt(self, *, timeout: float = 10.0) -> int:
        """Ctrl-C; the exit status."""
        os.write(self._master, b"\x03")
        self._program.send_signal(signal.SIGINT)
        while self._read(timeout * PATIENCE):
            pass
        return self._program.wait(timeout * PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._program.poll() is None:
            self._program.kill()
        self._program.wait()
        os.close(self._master)
