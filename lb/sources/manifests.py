"""A directory of Kubernetes YAML and JSON files as a source: changes act at once.

Hidden files and sub-folders do not count. inotify only wakes the source: what changed is decided
by looking, so that renames, symlinks swapped by a ConfigMap volume and lost events come out right.
A file counts once its writer closes it.
What the files mean is in `lb.sources.files`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Event
from typing import NamedTuple

from inotify_simple import INotify, flags

from lb.model import Change, Refused
from lb.sources import Inbox, Report
from lb.sources.files import File, Joined, in_force, read

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST = 64 * 1024 * 1024
"""Bytes of a file."""
GATHER_MS = 1
"""After the first event of a burst: most of it comes within this."""
RESCAN_MS = 500
"""The net under inotify, and the longest wait for `stop`."""
SETTLE_SECONDS = 1.0
"""How long a file that changed without an event must have rested."""
WAIT_SECONDS = 0.1
"""Between looks for a directory that is not there."""
EVENTS = (
    flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.CREATE
    | flags.DELETE_SELF | flags.MOVE_SELF
)  # fmt: skip

Signature = tuple[int, ...]
"""Device, inode, size and times in ns: differs whenever the file does, or where it leads."""


class ManifestSource:
    """Watches a directory; see the module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._signatures: dict[str, Signature] = {}
        self._files: dict[str, File] = {}
        self._joined = Joined()
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
        watch, error = _watch_of(self.directory)
        try:
            touched: set[str] = set()
            while not stop.is_set() and _identity(self.directory) == identity:
                self._look(inbox, touched, error)
                if watch is None:
                    stop.wait(RESCAN_MS / 1000)
                else:
                    touched = self._changed(watch, stop)
        finally:
            if watch is not None:
                watch.close()

    def _changed(self, watch: INotify, stop: Event) -> set[str]:
        """The names in the next burst of events that has any to look at; none after a while."""
        names: set[str] = set()
        while not names and not stop.is_set():
            events = watch.read(timeout=RESCAN_MS, read_delay=GATHER_MS)
            names = {event.name for event in events if self._counts(event.mask, event.name)}
            if not events:
                break
        return names

    def _counts(self, mask: int, name: str) -> bool:
        """A file that was just made is still being written, unless it is a link."""
        return mask & flags.CREATE == 0 or (self.directory / name).is_symlink()

    def _look(self, inbox: Inbox, touched: Collection[str], error: str) -> None:
        """Read what changed, deliver what follows from it. Raises OSError."""
        # A link that was swapped (`..data` of a ConfigMap) changes files that saw no event.
        swapped = any((self.directory / name).is_symlink() for name in touched)
        settled = None if swapped or not self._synced else time.time() - SETTLE_SECONDS
        seen = scan(self.directory, self._signatures, touched, settled)
        if seen.texts or seen.signatures.keys() != self._signatures.keys():
            self._signatures = seen.signatures
            self._deliver(inbox, read(seen.signatures, seen.texts, self._files))
        self._tell(inbox, error)
        if not self._synced:
            self._synced = True
            inbox.synced()

    def _deliver(self, inbox: Inbox, files: dict[str, File]) -> None:
        self._files = files
        changes = self._joined.become(files)
        if changes:
            inbox.changed(changes)

    def _tell(self, inbox: Inbox, error: str) -> None:
        report = Report("manifests", str(self.directory), error, self._joined.problems)
        if report != self._report:
            self._report = report
            inbox.report(report)


class Seen(NamedTuple):
    """A look at the directory: each file's signature, and the text of those that changed."""

    signatures: dict[str, Signature]
    texts: dict[str, bytes | Refused]


def scan(
    directory: Path,
    known: Mapping[str, Signature],
    touched: Collection[str] = (),
    settled: float | None = None,
) -> Seen:
    """Look at the directory, and read what is not `known` or was `touched`. Raises OSError.

    What changed without an event counts once its time (seconds since the epoch) is before
    `settled`: until then somebody may still be writing it.
    """
    seen = Seen({}, {})
    for name in os.listdir(directory):  # noqa: PTH208 (ten times faster than Path)
        if name.startswith(".") or not name.endswith(SUFFIXES):
            continue
        signature = _signature(directory / name)
        if signature is None:
            continue
        if settled is not None and name not in touched and _written_after(signature, settled):
            if name in known:
                seen.signatures[name] = known[name]
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


def _watch_of(directory: Path) -> tuple[INotify | None, str]:
    """A watch by inotify; None and the reason where the kernel has no watch to give."""
    try:
        watch = INotify()
    except OSError as error:
        return None, _blind(error)
    try:
        watch.add_watch(directory, EVENTS)
    except FileNotFoundError:
        watch.close()
        raise
    except OSError as error:
        watch.close()
        return None, _blind(error)
    return watch, ""


def _blind(error: OSError) -> str:
    return f"no inotify ({error.strerror}); changes are seen every {RESCAN_MS / 1000:g} s"


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


def _written_after(signature: Signature, moment: float) -> bool:
    return bool(signature) and signature[3] / 1e9 > moment


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
