"""The objects of a stand-in API server: versions, selectors, and what changed since when.

As little of the API as watching needs. Texts are kept ready, so that serving costs no encoding.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.bed.manifests import Manifest

PATHS = {
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Node": "/api/v1/nodes",
    "ServiceCIDR": "/apis/networking.k8s.io/v1/servicecidrs",
    "Pod": "/api/v1/pods",
}
Name = tuple[str, str]
Matches = Callable[[Manifest], bool]


class Stored(NamedTuple):
    """An object of some version, and its text."""

    manifest: Manifest
    text: bytes


class Entry(NamedTuple):
    """One change: an object's form before and after it."""

    version: int
    path: str
    old: Stored | None
    new: Stored | None


def selector(labels: str, fields: str) -> Matches:
    """From `!key`, `key`, `key=value` and `field.path=value`, `field.path!=value`.

    Raises ValueError for any other form.
    """
    tests = [_label(term) for term in labels.split(",") if term]
    tests += [_field(term) for term in fields.split(",") if term]
    return lambda manifest: all(test(manifest) for test in tests)


def _label(term: str) -> Matches:
    key, equals, value = term.partition("=")
    if "!" in key[1:] or " " in term:
        raise ValueError(term)
    if equals:
        return lambda manifest: _labels(manifest).get(key) == value
    if key.startswith("!"):
        return lambda manifest: key[1:] not in _labels(manifest)
    return lambda manifest: key in _labels(manifest)


def _labels(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("labels") or {}


def _field(term: str) -> Matches:
    left, equals, value = term.partition("=")
    if not equals:
        raise ValueError(term)
    path = left.removesuffix("!").split(".")

    def found(manifest: Manifest) -> object:
        value: object = manifest
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return value or ""

    if left.endswith("!"):
        return lambda manifest: found(manifest) != value
    return lambda manifest: found(manifest) == value


class Store:
    """All objects. `changed` guards them, and is notified of every change."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        # A store that starts anew must not give out versions that its predecessor gave.
        self.version = time.time_ns() // 1000
        self._oldest = self.version
        self._objects: dict[str, dict[Name, Stored]] = {path: {} for path in PATHS.values()}
        self._log: list[Entry] = []
        self.filled = False
        """Whether `become` was called."""

    def put(self, *manifests: Manifest) -> None:
        """Create or replace, in order; any object whose kind and name can be told."""
        with self.changed:
            for manifest in manifests:
                self._put(manifest)
            self.changed.notify_all()

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove; raises KeyError when it is not there."""
        path = PATHS[kind]
        with self.changed:
            old = self._objects[path].pop(("" if kind == "Node" else namespace, name))
            self._note(path, old, None)
            self.changed.notify_all()

    def become(self, manifests: Iterable[Manifest]) -> None:
        """Hold these objects and no others; what is the same already keeps its version."""
        with self.changed:
            wanted: dict[str, set[Name]] = {path: set() for path in PATHS.values()}
            for manifest in manifests:
                path, name = self._put(manifest)
                wanted[path].add(name)
            for path, objects in self._objects.items():
                for name in objects.keys() - wanted[path]:
                    self._note(path, objects.pop(name), None)
            self.filled = True
            self.changed.notify_all()

    def expire(self) -> None:
        """Forget all changes so far: a watch that begins before them has to list."""
        with self.changed:
            self.version += 1
            self._oldest = self.version

    def knows(self, version: int) -> bool:
        """Whether a watch may begin there; else it is 410."""
        return version >= self._oldest

    def list(self, path: str, matches: Matches) -> tuple[int, list[bytes]]:
        """The version of now, and the texts of all that match, by name."""
        with self.changed:
            found = sorted(self._objects[path].items())
            return self.version, [one.text for _, one in found if matches(one.manifest)]

    def since(self, path: str, version: int, matches: Matches) -> list[bytes]:
        """The lines of a watch since a version; the caller holds `changed`."""
        entries: list[Entry] = []
        for entry in reversed(self._log):
            if entry.version <= version:
                break
            if entry.path == path:
                entries.append(entry)
        return list(_lines(reversed(entries), matches))

    def _put(self, manifest: Manifest) -> tuple[str, Name]:
        path, meta = PATHS[manifest["kind"]], manifest["metadata"]
        meta = ({} if manifest["kind"] == "Node" else {"namespace": "default"}) | meta
        name = (meta.get("namespace", ""), meta["name"])
        old = self._objects[path].get(name)
        version = old.manifest["metadata"]["resourceVersion"] if old else ""
        if old and old.manifest == manifest | {"metadata": meta | {"resourceVersion": version}}:
            return path, name
        stamped = manifest | {"metadata": meta | {"resourceVersion": str(self.version + 1)}}
        stored = Stored(stamped, json.dumps(stamped).encode())
        self._objects[path][name] = stored
        self._note(path, old, stored)
        return path, name

    def _note(self, path: str, old: Stored | None, new: Stored | None) -> None:
        self.version += 1
        self._log.append(Entry(self.version, path, old, new))


class Watch:
    """An open stream. Guarded by the store's condition."""

    def __init__(self, resource: str, connection: socket.socket) -> None:
        self.resource = resource
        self.connection = connection
        self.lines: list[bytes] = []
        self.silent = False
        self.deaf = False
        """Whether changes of objects are kept from it, but not what it is told by `say`."""
        self.ended = False


def event(kind: str, text: bytes) -> bytes:
    """A line of a watch."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), text)


def bookmark(version: int) -> bytes:
    """The line that only says how far a watch has come."""
    return event("BOOKMARK", b'{"metadata":{"resourceVersion":"%d"}}' % version)


def _lines(entries: Iterable[Entry], matches: Matches) -> Iterable[bytes]:
    """To a selector, what stops to match is deleted and what begins to is added."""
    for entry in entries:
        was = entry.old is not None and matches(entry.old.manifest)
        if entry.new is not None and matches(entry.new.manifest):
            yield event("MODIFIED" if was else "ADDED", entry.new.text)
        elif was and entry.old is not None:
            meta = entry.old.manifest["metadata"] | {"resourceVersion": str(entry.version)}
            yield event("DELETED", json.dumps(entry.old.manifest | {"metadata": meta}).encode())
