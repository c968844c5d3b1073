"""A directory of Kubernetes YAML and JSON files as a source: changes act at once.

The pure part: `read` turns changed files into what each of them holds, `in_force` joins the files,
`difference` finds the changes. A file or an object that is broken keeps its last good form and
harms nothing else. Files count in the order of their names; hidden files and sub-folders do not.

`ManifestSource` finds out which files changed. inotify only wakes it: what changed is decided by
looking, so that renames, symlinks swapped by a ConfigMap volume and lost events come out right.
A file that is written in pieces may be seen half done: write it elsewhere and rename it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import NamedTuple

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from lb.model import Change, Key, Refused
from lb.sources import Inbox, Report
from lb.sources.convert import from_plain
from lb.sources.documents import parse

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST = 64 * 1024 * 1024
"""Bytes of a file."""
QUIET_MS, LONGEST_MS = 5, 100
"""A burst of events ends when nothing came for the first, or lasted the second."""
RESCAN_MS = 2000
"""The net under inotify."""
WAIT_SECONDS = 0.1
"""Between looks for a directory that is not there."""


class Entry(NamedTuple):
    """An object and the place where it stands."""

    where: str
    change: Change


class File(NamedTuple):
    """What is in force of one file, and what is wrong with it."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Refused, ...] = ()


class Objects(NamedTuple):
    """What all files together ask for."""

    changes: Mapping[Key, Change] = {}
    problems: tuple[Refused, ...] = ()


def read(
    names: Iterable[str], texts: Mapping[str, bytes | Refused], previous: Mapping[str, File]
) -> dict[str, File]:
    """The files of `names`, in order; those without a text are as they were before."""
    nothing = File()
    return {
        name: _read_file(name, texts[name], previous.get(name, nothing))
        if name in texts
        else previous.get(name, nothing)
        for name in sorted(names)
    }


def _read_file(name: str, text: bytes | Refused, previous: File) -> File:
    if isinstance(text, bytes) and not text.strip():
        # Whoever writes a file makes it empty first: that must not end its services.
        text = Refused(name, "is empty; to remove what was in it, remove the file")
    found = parse(name, text) if isinstance(text, bytes) else text
    if isinstance(found, Refused):
        kept = "; its last good content stays in force" if previous.entries else ""
        return File(previous.entries, (found._replace(reason=found.reason + kept),))
    good = {entry.change.key: entry.change for entry in reversed(previous.entries)}
    entries, problems = [], []
    for where, value in found:
        result = from_plain(_with_defaults(value))
        if isinstance(result, Change):
            entries.append(Entry(where, _or_last_good(result, good.get(result.key))))
        elif result is not None:
            reason = f"{result.subject}: {result.reason}"
            problems.append(Refused(where, reason, result.wrong))
    return File(tuple(entries), tuple(problems))


def _with_defaults(value: object) -> object:
    """An unnamed port of a slice has the empty name, as the API server would have written it."""
    ports = value.get("ports") if isinstance(value, dict) else None
    for port in ports if isinstance(ports, list) else ():
        if isinstance(port, dict) and port.get("name") is None:
            port["name"] = ""
    return value


def _or_last_good(change: Change, last: Change | None) -> Change:
    broken = change.value is None and any(refused.wrong for refused in change.refused)
    if not broken or last is None or last.value is None:
        return change
    kept = Refused(str(change.key), "its last good form stays in force")
    return Change(change.key, last.value, (*change.refused, kept))


def in_force(files: Mapping[str, File]) -> Objects:
    """Each object once: of those with one name, the first counts and the others are problems."""
    first: dict[Key, Entry] = {}
    problems: list[Refused] = []
    for file in files.values():
        problems += file.problems
        for entry in file.entries:
            key = entry.change.key
            if key in first:
                reason = f"{key} is named twice; the one at {first[key].where} counts"
                problems.append(Refused(entry.where, reason))
            else:
                first[key] = entry
    return Objects({key: entry.change for key, entry in first.items()}, tuple(problems))


def difference(old: Mapping[Key, Change], new: Mapping[Key, Change]) -> list[Change]:
    """What leads from `old` to `new`; removals first, so that what they held is free again."""
    gone = [Change(key, None) for key in old if key not in new]
    return gone + [change for key, change in new.items() if old.get(key) != change]


class ManifestSource:
    """Watches a directory; see the module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._signatures: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, File] = {}
        self._objects = Objects()
        self._report: Report | None = None
        self._synced = False

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set; a directory that is not there is waited for."""
        while not stop.is_set():
            try:
                self._watch(inbox, stop)
            except FileNotFoundError:
                if self._synced:
                    self._deliver(inbox, {})
                self._tell(inbox, "there is no such directory; waiting for it")
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
        texts: dict[str, bytes | Refused] = {}
        signatures: dict[str, tuple[int, ...]] = {}
        for name in os.listdir(self.directory):  # noqa: PTH208 (ten times faster than Path)
            if name.startswith(".") or not name.endswith(SUFFIXES):
                continue
            signature = _signature(self.directory / name)
            if signature is None:
                continue
            signatures[name] = signature
            # A second write within one tick of the file system's clock leaves no trace in stat.
            if name in touched or signature != self._signatures.get(name):
                texts[name] = _contents(self.directory / name)
        if texts or signatures.keys() != self._signatures.keys() or not self._synced:
            self._signatures = signatures
            self._deliver(inbox, read(signatures, texts, self._files))
        self._tell(inbox, error)
        if not self._synced:
            self._synced = True
            inbox.synced()

    def _deliver(self, inbox: Inbox, files: dict[str, File]) -> None:
        if not files:
            self._signatures = {}
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


def _signature(path: Path) -> tuple[int, ...] | None:
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
