"""What a set of manifest files asks for, when some are broken and some say the same thing twice.

Pure: `read` turns changed files into what each of them holds, `Joined` joins the files and finds
the changes. A file or an object that is broken keeps its last good form and
harms nothing else. Files count in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lb.model import Change, Key, Refused
from lb.sources.convert import from_plain
from lb.sources.documents import parse


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
        else:
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
    joined = Joined()
    joined.become(files)
    return Objects(joined.changes, joined.problems)


class Joined:
    """What all files together ask for, followed from one state to the next.

    A step costs what the files hold that changed, and little of what there is besides.
    """

    def __init__(self) -> None:
        self.changes: dict[Key, Change] = {}
        self.problems: tuple[Refused, ...] = ()
        self._files: Mapping[str, File] = {}
        self._places: dict[Key, tuple[str, ...]] = {}
        """The files that name a key, in order; a file as often as it does."""
        self._repeated: set[Key] = set()

    def become(self, files: Mapping[str, File]) -> list[Change]:
        """Files that are the same object as before are taken as unchanged. What follows from it.

        Removals come first, so that what they held is free again.
        """
        old, self._files = self._files, files
        different = [n for n in sorted({*old, *files}) if old.get(n) is not files.get(n)]
        touched: dict[Key, None] = {}
        for name in different:
            if name in old:
                touched |= dict.fromkeys(self._without(name, old[name]))
        for name in different:
            if name in files:
                touched |= dict.fromkeys(self._with(name, files[name]))
        self._repeated -= touched.keys()
        self._repeated |= {key for key in touched if len(self._places.get(key, ())) > 1}
        self.problems = tuple(self._list_problems())
        return self._settle(touched)

    def _without(self, name: str, file: File) -> list[Key]:
        keys = [entry.change.key for entry in file.entries]
        for key in keys:
            left = tuple([one for one in self._places.pop(key, ()) if one != name])
            if left:
                self._places[key] = left
        return keys

    def _with(self, name: str, file: File) -> list[Key]:
        keys = [entry.change.key for entry in file.entries]
        alone = (name,)
        for key in keys:
            others = self._places.get(key)
            self._places[key] = tuple(sorted(others + alone)) if others else alone
        return keys

    def _settle(self, keys: Iterable[Key]) -> list[Change]:
        """What counts of these keys now, where it is something else than before."""
        gone, new = [], []
        first: dict[str, dict[Key, Change]] = {}
        for key in keys:
            if key not in self._places:
                del self.changes[key]
                gone.append(Change(key, None))
                continue
            name = self._places[key][0]
            if name not in first:
                entries = reversed(self._files[name].entries)
                first[name] = {entry.change.key: entry.change for entry in entries}
            change = first[name][key]
            if self.changes.get(key) != change:
                self.changes[key] = change
                new.append(change)
        return gone + new

    def _list_problems(self) -> Iterator[Refused]:
        counts: dict[Key, Entry] = {}
        repeating = {name for key in self._repeated for name in self._places[key]}
        for name, file in self._files.items():
            yield from file.problems
            for entry in file.entries if name in repeating else ():
                key = entry.change.key
                if key in self._repeated and counts.setdefault(key, entry) is not entry:
                    reason = f"{key} is named twice; the one at {counts[key].where} counts"
                    yield Refused(entry.where, reason)
