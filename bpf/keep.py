"""Keeps a node's pins: holds each object open, and pins it anew where its file went.

A map, program or link lives as long as anybody holds it. So while the agent runs, nobody can take
anything away by removing files; and a link that is held goes on carrying traffic.
Not for what was detached: then its link is dead, and is let go (`bpf.link` makes another).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from bpf import libbpf
from bpf.pins import Pins, mount


class Keeper:
    """Holds what is pinned below `pins.folder`; of links, those with these names.

    Not thread-safe.
    """

    def __init__(self, pins: Pins, links: Collection[str]) -> None:
        self._pins = pins
        self._links = {pins.links / name for name in links}
        self._held: dict[Path, int] = {}

    def mend(self) -> Iterator[Path]:
        """Pin anew what is held and not there; those paths. Raises OSError."""
        self.hold()
        for path, fd in list(self._held.items()):
            if path in self._links and not libbpf.link_info(fd).cgroup:
                os.close(self._held.pop(path))
            elif not _is_at(path, fd):
                mount(self._pins.folder)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                libbpf.pin(fd, str(path))
                yield path

    def hold(self) -> None:
        """From now on also what was pinned since. Raises OSError."""
        for path in self._present():
            if path not in self._held:
                with suppress(FileNotFoundError):
                    self._held[path] = libbpf.open_pin(str(path))

    def _present(self) -> Iterator[Path]:
        """The files that are there now."""
        folders = [self._pins.folder / "maps"]
        with suppress(FileNotFoundError):
            folders += (self._pins.folder / "programs").iterdir()
        for folder in folders:
            with suppress(FileNotFoundError):
                yield from folder.iterdir()
        yield from (path for path in self._links if path.exists())


def _is_at(path: Path, fd: int) -> bool:
    """Is this very object pinned there?"""
    try:
        there = libbpf.open_pin(str(path))
    except OSError:
        return False  # nothing, or no object of BPF
    try:
        return libbpf.object_id(there) == libbpf.object_id(fd)
    finally:
        os.close(there)
