"""From what an API server says of one kind of object to changes of the model. Pure.

Remembers of each object its name and resourceVersion, so that a second list costs only what
changed, and what vanished from it is known. An object that cannot be read is skipped: its last
good form stays in force, and `problems` says so, until it is good again or deleted.
Not for requests, and not for what the fields mean: that is `lb.sources.convert`.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern

import msgspec

from lb.model import Change, Key, Refused
from lb.sources.convert import KINDS, convert, identify, reason
from lb.sources.objects import TYPES

BAD_REQUEST = 400
"""HTTP's word for what does not parse; given here to a stream that holds no event."""
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Meta(msgspec.Struct, rename="camel", gc=False):
    """`metadata` of an object or of a list."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    next_page: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct, gc=False):
    """One page of a list; its items are views of the page's text."""

    metadata: Meta
    items: list[msgspec.Raw] | None = None


class Status(msgspec.Struct, gc=False):
    """What the API answers in place of an object."""

    code: int = 0
    message: str = ""


class _Head(msgspec.Struct, gc=False):
    metadata: Meta


class _Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


_head = msgspec.json.Decoder(_Head)
_event = msgspec.json.Decoder(_Event)
page = msgspec.json.Decoder(Page)
status = msgspec.json.Decoder(Status)


class Feed:
    """All that was said of the objects of one `apiVersion` and `kind`."""

    def __init__(self, version: str, kind: str) -> None:
        wanted = TYPES[version, kind]
        self._kind = KINDS[wanted]
        self._decoder = msgspec.json.Decoder(wanted)
        self._versions: dict[Key, str] = {}
        self._in_force: set[Key] = set()
        self._listed: set[Key] = set()
        self.problems: dict[Key, tuple[Refused, ...]] = {}
        self.version = ""
        """Where a watch goes on from; empty: a list is needed first."""

    def begin(self) -> None:
        """A full list begins; `listed` takes its pages, `end` says that it was complete."""
        self._listed = set()

    def listed(self, items: Iterable[msgspec.Raw]) -> list[Change]:
        """What is new in a page."""
        changes: list[Change] = []
        for item in items:
            key, version = self._identify(item)
            self._listed.add(key)
            if not version or self._versions.get(key) != version:
                changes += self._put(key, version, item)
        return changes

    def end(self, version: str) -> list[Change]:
        """What is gone, now that the whole list is known to be of `version`."""
        gone = [key for key in self._versions if key not in self._listed]
        self._listed = set()
        self.version = version
        return [self._remove(key) for key in gone]

    def events(self, lines: Iterable[bytes]) -> tuple[list[Change], Status | None]:
        """What the lines of a watch change, in their order; a Status ends the watch."""
        changes: list[Change] = []
        for line in lines:
            try:
                event = _event.decode(line)
                if event.type == "ERROR":
                    return changes, status.decode(event.object)
            except _MALFORMED as error:
                return changes, Status(BAD_REQUEST, f"the watch holds no event: {reason(error)}")
            key, version = self._identify(event.object)
            if event.type in ("ADDED", "MODIFIED"):
                changes += self._put(key, version, event.object)
            elif event.type == "DELETED":
                changes.append(self._remove(key))
            self.version = version or self.version
        return changes, None

    def _identify(self, item: msgspec.Raw) -> tuple[Key, str]:
        """The object's name and resourceVersion, as far as it has any."""
        try:
            meta = _head.decode(item).metadata
        except _MALFORMED:
            found = identify(_plain(item))
            return Key(self._kind, found.namespace, found.name), ""
        return Key(self._kind, intern(meta.namespace), meta.name), meta.resource_version

    def _put(self, key: Key, version: str, item: msgspec.Raw) -> list[Change]:
        self._versions[key] = version
        try:
            result = convert(self._decoder.decode(item))
        except _MALFORMED as error:
            refused = Refused(str(key), reason(error))
            result = Change(key, None, (refused,)) if key.name else refused
        if isinstance(result, Refused):  # its name is none: no change can carry it
            self.problems[key] = (result,)
            return []
        broken = result.value is None and any(refused.wrong for refused in result.refused)
        if broken and key in self._in_force:
            kept = Refused(str(key), "its last good form stays in force")
            self.problems[key] = (*result.refused, kept)
            return []
        self.problems.pop(key, None)
        if result.value is None:
            self._in_force.discard(key)
        else:
            self._in_force.add(key)
        return [result]

    def _remove(self, key: Key) -> Change:
        self._versions.pop(key, None)
        self._in_force.discard(key)
        self.problems.pop(key, None)
        return Change(key, None)


def _plain(item: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(item)
    except _MALFORMED:
        return None
