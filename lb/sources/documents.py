"""From the bytes of a manifest file to plain values: YAML of many documents, JSON, lists opened up.

Pure. Files are not trusted: tags construct no objects, and nesting and aliases are bounded before
anything is built (the C composer recurses on the C stack, which a deep file would overrun; a few
nested aliases can stand for billions of values). Text that looks like a time or like `1:20` stays
text, as kubectl reads it. Nothing here knows what a Service is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import yaml

from lb.model import Refused
from lb.sources.convert import identify
from lb.sources.objects import LISTS

DEEPEST = 200
"""Levels of nesting in a file."""
LARGEST_EXPANSION = 1_000_000
"""Values that a document may hold once its aliases are resolved (or as many as it has bytes)."""

_INT = re.compile(
    r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)\Z"  # without base 60
)
_JSON_OFFSET = re.compile(r" \(byte (\d+)\)\Z")


class Document(NamedTuple):
    """One plain value and the place where it stands: `services.yaml:12`."""

    where: str
    value: object


class _Loader(yaml.CSafeLoader):
    """The safe loader without YAML 1.1's times and base 60, which eat unquoted addresses."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, _INT if tag.endswith(":int") else pattern)
            for tag, pattern in resolvers
            if not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


class _TooMuchError(Exception):
    """A bound is passed at `line`, counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def parse(name: str, data: bytes) -> list[Document] | Refused:
    """The documents of a file, or the line at which it does not parse and why."""
    try:
        text = data.decode("utf-8-sig")
        if name.endswith(".json"):
            found = [Document(f"{name}:1", msgspec.json.decode(text))]
        else:
            _bound(text)
            found = list(_documents(name, text))
    except (_TooMuchError, yaml.YAMLError, ValueError, RecursionError) as error:
        line, reason = _explain(error, data)
        return Refused(f"{name}:{line}", reason)
    return [item for document in found for item in _items(document)]


def _explain(error: Exception, data: bytes) -> tuple[int, str]:
    """The line, counted from 1, and the reason in one line."""
    match error:
        case _TooMuchError():
            return error.line, str(error)
        case UnicodeDecodeError():
            return _line(data, error.start), "is not UTF-8 text"
        case msgspec.DecodeError():
            offset = _JSON_OFFSET.search(str(error))
            return _line(data, int(offset[1]) if offset else 0), _JSON_OFFSET.sub("", str(error))
        case yaml.MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            # What ends too soon is marked behind the last line.
            last = _line(data.rstrip(), len(data))
            line = min(mark.line + 1, last) if mark else 1
            return line, _one_line(error.context, error.problem)
        case _:  # among them a number of 5,000 digits, an odd !!timestamp, nesting in JSON
            return 1, _one_line("does not parse", str(error))


def _documents(name: str, text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if value is not None and node is not None:
                yield Document(f"{name}:{node.start_mark.line + 1}", value)
    finally:
        loader.dispose()


def _bound(text: str) -> None:
    """Raises _TooMuchError for what is nested too deep or expands too far; YAMLError."""
    sizes = _Sizes(max(LARGEST_EXPANSION, len(text)))
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.ScalarEvent():
                sizes.add(event.anchor, 1)
            case yaml.CollectionStartEvent():
                sizes.open(event.anchor, line)
            case yaml.CollectionEndEvent():
                sizes.close()
            case yaml.AliasEvent():
                sizes.alias(event.anchor, line)
            case yaml.DocumentStartEvent():
                sizes.clear()


class _Sizes:
    """How many values the open collections hold with aliases resolved, and the anchors."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        self._counts: list[int] = [0]
        self._open: list[str | None] = []
        self._anchors: dict[str, int] = {}

    def add(self, anchor: str | None, size: int) -> None:
        self._counts[-1] += size
        if anchor:
            self._anchors[anchor] = size

    def open(self, anchor: str | None, line: int) -> None:
        if len(self._open) >= DEEPEST:
            raise _TooMuchError(line, f"is nested more than {DEEPEST} levels deep")
        self._counts.append(1)
        self._open.append(anchor)
        self._anchors.pop(anchor or "", None)

    def close(self) -> None:
        self.add(self._open.pop(), self._counts.pop())

    def alias(self, anchor: str | None, line: int) -> None:
        size = self._anchors.get(anchor or "")
        if size is None:  # unknown, or still open: a value that would hold itself
            raise _TooMuchError(line, f"alias {anchor!r} has nothing to stand for")
        self.add(None, size)
        if self._counts[-1] > self._limit:
            raise _TooMuchError(line, f"aliases stand for more than {self._limit} values")


def _items(document: Document) -> Iterator[Document]:
    """The document itself, or the objects that it lists."""
    where, value = document
    version, kind, *_ = identify(value)
    items = value.get("items") or [] if isinstance(value, dict) else None
    if not isinstance(items, list) or (version, kind) not in {("v1", "List"), *LISTS}:
        yield document
        return
    version, kind = LISTS.get((version, kind), ("", ""))
    for i, item in enumerate(items):
        own = {"apiVersion": version, "kind": kind} if kind and isinstance(item, dict) else None
        yield Document(f"{where} items[{i}]", item if own is None else own | item)


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _one_line(*parts: str | None) -> str:
    return " ".join(", ".join(part for part in parts if part).split())[:200]
