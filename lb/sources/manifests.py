"""A directory of Kubernetes YAML and JSON files as a source: changes act at once.

Hidden files and sub-folders do not count. inotify only wakes the source: what changed is decided
by looking, so that renames, symlinks swapped by a ConfigMap volume and lost events come out right.
A file that is written in pieces may be seen half done: write it elsewhere and rename it.
What the files mean is in `lb.sources.files`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Event
from typing import NamedTuple

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from lb.model import Change, Refused
from lb.sources import Inbox, Report
from lb.sources.files import File, Objects, difference, in_force, read

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST = 64 * 1024 * 1024
"""Bytes of a file."""
QUIET_MS, LONGEST_MS = 5, 100
"""A burst of events ends when nothing came for the first, or lasted the second."""
RESCAN_MS = 2000
"""The net under inotify."""
WAIT_SECONDS = 0.1
"""Between looks for a directory that is not there."""


Signature = tuple[int, ...]
"""Device, inode, size and times in ns: differs whenever the file does, or where it leads."""


class ManifestSource:
    """Watches a directory; see the module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._signatures: dict[str, Signature] = {}
        self._files: dict[str, File] = {}
        self._objects = Objects()
        self._report: Report | None = None
        self._synced = False

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set; a directory that is not there is waited for.

        One that goes away is a volume that was lost, not a wish to end every service.
        """
        while not stop.is_set():
            try:
                self._watch(inbox, stop)
            except FileNotFoundError:
                kept = "; what it held stays in force" if self._files else ""
                self._tell(inbox, f"there is no such directory{kept}; waiting for it")
                stop.wait(WAIT_SECONDS)
            except OSError as error:
                self._tell(inbox, f"cannot be read: {error.strerror or error}")
                stop.wait(WAIT_SECONDS)

    def _watch(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until the directory is another one, or none. Raises OSError."""
        identity = _identity(self.directory)
        # Watch first, look then: nothing that happens in between is lost.
        watcher, error = _watcher(self.directory)
        try:
            touched: set[str] = set()
            while not stop.is_set() and _identity(self.directory) == identity:
                self._look(inbox, touched, error)
                if watcher is None:
                    stop.wait(RESCAN_MS / 1000)
                    continue
                events = watcher.watch(LONGEST_MS, QUIET_MS, RESCAN_MS, stop)
                touched = (
                    {Path(path).name for _, path in events} if isinstance(events, set) else set()
                )
        finally:
            if watcher is not None:
                watcher.close()

    def _look(self, inbox: Inbox, touched: Collection[str], error: str) -> None:
        """Read what changed, deliver what follows from it. Raises OSError."""
        seen = scan(self.directory, self._signatures, touched)
        if seen.texts or seen.signatures.keys() != self._signatures.keys():
            self._signatures = seen.signatures
            self._deliver(inbox, read(seen.signatures, seen.texts, self._files))
        self._tell(inbox, error)
        if not self._synced:
            self._synced = True
            inbox.synced()

    def _deliver(self, inbox: Inbox, files: dict[str, File]) -> None:
        objects = in_force(files)
        changes = difference(self._objects.changes, objects.changes)
        self._files, self._objects = files, objects
        if changes:
            inbox.changed(changes)

    def _tell(self, inbox: Inbox, error: str) -> None:
        report = Report("manifests", str(self.directory), error, self._objects.problems)
        if report != self._report:
            self._report = report
            inbox.report(report)


class Seen(NamedTuple):
    """A look at the directory: each file's signature, and the text of those that changed."""

    signatures: dict[str, Signature]
    texts: dict[str, bytes | Refused]


def scan(directory: Path, known: Mapping[str, Signature], touched: Collection[str] = ()) -> Seen:
    """Look at the directory, and read what is not `known` or was `touched`. Raises OSError."""
    seen = Seen({}, {})
    for name in os.listdir(directory):  # noqa: PTH208 (ten times faster than Path)
        if name.startswith(".") or not name.endswith(SUFFIXES):
            continue
        signature = _signature(directory / name)
        if signature is None:
            continue
        seen.signatures[name] = signature
        # A second write within one tick of the file system's clock leaves no trace in stat.
        if name in touched or signature != known.get(name):
            seen.texts[name] = _contents(directory / name)
    return seen


def read_directory(directory: Path) -> tuple[list[Change], tuple[Refused, ...]]:
    """What the files ask for now, and what is wrong with them; for one look. Raises OSError."""
    seen = scan(directory, {})
    objects = in_force(read(seen.signatures, seen.texts, {}))
    return list(objects.changes.values()), objects.problems


def _watcher(directory: Path) -> tuple[RustNotify | None, str]:
    """A watch by inotify; None and the reason where the kernel has no watch to give."""
    try:
        watcher = RustNotify(
            [str(directory)],
            debug=False,
            force_polling=False,
            poll_delay_ms=0,
            recursive=False,
            ignore_permission_denied=True,
        )
    except FileNotFoundError:
        raise
    except (OSError, WatchfilesRustInternalError) as error:
        return None, f"no inotify ({error}); changes are seen every {RESCAN_MS / 1000:g} s"
    return watcher, ""


def _identity(directory: Path) -> tuple[int, int]:
    found = directory.stat()
    return found.st_dev, found.st_ino


def _signature(path: Path) -> Signature | None:
    """Changes whenever the file does, or where it leads; None if it is gone or no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return ()  # let reading it say what is wrong
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _contents(path: Path) -> bytes | Refused:
    """The file's bytes, or why it cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        return Refused(path.name, f"cannot be read: {error.strerror or error}")
    if len(data) > LARGEST:
        return Refused(path.name, f"is larger than {LARGEST} bytes")
    return data
