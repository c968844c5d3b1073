"""`tidegate monitor`: what happens, as it happens, with names on both sides."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bpf.pins import Pins
from lb.client import ask
from lb.config import cgroup2_root
from lb.errors import KernelRefused, TidegateError
from lb.see import events
from lb.see.listening import heard
from lb.see.spaces import address_in
from lb.see.who import Who
from lb.tables import in_kernel

FORMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "text": events.line,
    "compact": events.compact,
    "json": lambda row: json.dumps({k: v for k, v in row.items() if k != "addresses"}),
}


def monitor(  # noqa: PLR0913 - one argument an option
    bpffs: Path,
    api_socket: Path,
    wanted: events.Wanted,
    *,
    every: int,
    count: int,
    say: Callable[[dict[str, Any]], None],
) -> None:
    """Says each wanted event until interrupted, or until `count` were said (0: no end).

    Loss is said as an event of its own. Raises BadInput, KernelRefused.
    """
    wanted = wanted.checked()
    pins = Pins(bpffs)
    try:
        who = names(pins, bpffs, api_socket)
        with heard(pins, every=every) as listener:
            say({"event": "listening"})
            lost, said = 0, 0
            for batch in listener.batches():
                for row in _rows(batch, who, wanted):
                    say(row)
                    said += 1
                    if said == count:
                        return
                if listener.lost > lost:
                    say({"event": "lost", "count": listener.lost - lost})
                    lost = listener.lost
    except InterruptedError:
        return
    except OSError as error:
        raise KernelRefused(
            f"--bpffs {bpffs}: {error.strerror}; was an agent of this version started with it?"
        ) from error


def _rows(batch: list[Any], who: Who, wanted: events.Wanted) -> Iterator[dict[str, Any]]:
    started = time.time() - time.monotonic()
    for event in batch:
        try:
            row = events.row(event, who, started)
        except ValueError:
            continue  # of a program of another version
        if wanted.takes(row):
            yield row


def names(pins: Pins, bpffs: Path, api_socket: Path) -> Who:
    """Names from the maps, and from the agent of these very pins if it runs. Raises OSError."""

    def pods() -> dict[str, str]:
        try:
            found: dict[str, str] = ask(api_socket, "/pods", timeout=5.0)
        except TidegateError:
            return {}
        return found

    def find(cookie: int) -> str:
        return address_in(cookie, cgroup_of(bpffs, api_socket))

    return Who(in_kernel(pins), pods, find, time.monotonic, pins.open_hash("limit_names"))


def cgroup_of(bpffs: Path, api_socket: Path) -> Path | None:
    """The cgroup that the agent of these pins serves; else the root; None: there is none."""
    try:
        status = ask(api_socket, "/status", timeout=5.0)
        if status["bpffs"] == str(bpffs):
            return Path(status["cgroup"])
        return cgroup2_root(Path("/proc/self/mounts").read_text())
    except (TidegateError, OSError):
        return None
