"""What a set of manifest files asks for, when some are broken and some say the same thing twice.

Pure: `read` turns changed files into what each of them holds, `in_force` joins the files,
`difference` finds the changes. A file or an object that is broken keeps its last good form and
harms nothing else. Files count in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
