"""Keeps up with one resource of an API server: list, then watch, and start over where needed.

Delivers differences only: after a gap in the watch the new list is compared with what was
delivered, and what vanished in between is deleted. While the server is away nothing is delivered,
so nothing is lost. How a connection comes about (credentials, TLS) is `lb.sources.kubernetes`'.
Protocol: "Efficient detection of changes" in the Kubernetes API concepts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from threading import Event
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from lb.errors import TidegateError
from lb.model import Change, Key
from lb.sources import objects
from lb.sources.convert import convert, from_plain, reason
from lb.sources.files import difference

PAGE = 500
"""Objects asked for at a time."""
LIST_SECONDS = 30.0
"""Longest silence within a list."""
WATCH_SECONDS = 300
"""The server is asked to end a watch after this to twice this, so that not all nodes come at once
and so that credentials are read again."""
SILENCE_SECONDS = 80.0
"""Longest silence within a watch: servers send a bookmark about every minute. Then the connection
may be half open; asking again from the last version costs little."""
SHORT_SECONDS = 1.0
"""A watch that ends sooner, and with nothing, is a failure (or it would be asked for at once)."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0
"""Seconds between attempts."""

T = TypeVar("T")


class Resource(NamedTuple):
    """What is asked for."""

    path: str
    version: str
    kind: str
    label_selector: str = ""
    field_selector: str = ""
    may_drop_field: bool = False
    """For servers that do not know the field, where `convert` leaves the same objects out."""


class Connection(Protocol):
    """One door to the API server, with credentials read just now."""

    def get(self, path: str, query: Mapping[str, str], silence: float) -> HTTPResponse:
        """The answer, its body unread. Raises HTTPError, OSError."""

    def close(self) -> None:
        """Give up its sockets."""


class RefusedByServerError(TidegateError):
    """The API server answered, and not with what was asked for."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class ListMeta(objects.Object):
    """`metadata` of a list, of a bookmark and of every object, as far as it is read here."""

    resource_version: str = ""
    resume: str | None = msgspec.field(name="continue", default=None)


class Page(msgspec.Struct, Generic[T]):
    """One part of a list."""

    metadata: ListMeta
    items: list[T] | None = None


class Versioned(objects.Object):
    """Any object, for its version only."""

    metadata: ListMeta


class Status(objects.Object):
    """What the server says when it refuses."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None


class WatchEvent(objects.Object):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Decoder:
    """Turns the bytes of one resource into changes. Objects of a wrong type harm no other."""

    def __init__(self, resource: Resource) -> None:
        self._typed = objects.TYPES[resource.version, resource.kind]
        self._named = {"apiVersion": resource.version, "kind": resource.kind}
        self._page = msgspec.json.Decoder(Page[self._typed])  # type: ignore[name-defined]
        self._raw_page = msgspec.json.Decoder(Page[msgspec.Raw])
        self._object = msgspec.json.Decoder(self._typed)

    def page(self, data: bytes) -> tuple[ListMeta, list[Change]]:
        """A part of a list. Raises msgspec.DecodeError."""
        try:
            page = self._page.decode(data)
        except msgspec.ValidationError:
            raw = self._raw_page.decode(data)
            return raw.metadata, list(_only(self.change(item) for item in raw.items or ()))
        return page.metadata, list(_only(convert(item) for item in page.items or ()))

    def change(self, data: msgspec.Raw) -> Change | None:
        """One object; None if it cannot even be named. Raises msgspec.DecodeError."""
        try:
            found = convert(self._object.decode(data))
        except msgspec.ValidationError:
            plain = msgspec.json.decode(data)
            known = from_plain(plain | self._named if isinstance(plain, dict) else plain)
            return known if isinstance(known, Change) else None
        return found if isinstance(found, Change) else None


def _only(found: Iterable[object]) -> Iterator[Change]:
    return (one for one in found if isinstance(one, Change))


def wait_seconds(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` is from 0 to 1."""
    if failures == 0:
        return 0.0
    longest: float = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    return longest * (0.5 + chance / 2)


class Reflector:
    """One resource's state and loop; `run` belongs to one thread."""

    def __init__(
        self,
        resource: Resource,
        connect: Callable[[], Connection],
        deliver: Callable[[list[Change]], None],
        tell: Callable[[str], None],
    ) -> None:
        self._resource = resource
        self._connect, self._deliver, self._tell = connect, deliver, tell
        self._decoder = Decoder(resource)
        self._known: dict[Key, Change] = {}
        self._version = ""
        self._failures = 0
        self._response: HTTPResponse | None = None

    def run(self, stop: Event, listed: Callable[[], None]) -> None:
        """Deliver until `stop` is set; `listed` is called after each list that is complete."""
        while not stop.is_set():
            wait = 0.0
            try:
                with closing(self._connect()) as connection:
                    if not self._version:
                        self._list(connection)
                        self._tell("")
                        listed()
                    self._watch(connection, stop)
            except RefusedByServerError as error:
                gone = error.code == 410
                if gone:  # The first time at once: that is how a server forgets history.
                    self._version = ""
                else:
                    self._tell(str(error))
                wait = wait_seconds(self._failures + (not gone), random.random())  # noqa: S311
                self._failures += 1
            except (TidegateError, HTTPError, OSError, ValueError, RecursionError) as error:
                if not stop.is_set():
                    self._tell(f"{self._resource.path}: {_one_line(error)}")
                self._failures += 1
                wait = wait_seconds(self._failures, random.random())  # noqa: S311
            stop.wait(wait)

    def interrupt(self) -> None:
        """End a watch that waits for its next line; for another thread, after `stop` is set."""
        response = self._response
        if response is not None:
            with suppress(OSError, ValueError):
                response.shutdown()

    def _list(self, connection: Connection) -> None:
        """All objects, page by page; delivered as one difference. Raises as `Connection.get`."""
        found: dict[Key, Change] = {}
        resume: str | None = None
        while True:
            query = {"limit": str(PAGE)} | ({"continue": resume} if resume else {})
            with closing(self._get(connection, query, LIST_SECONDS)) as response:
                metadata, changes = self._decoder.page(response.read())
            found |= {change.key: change for change in changes}
            resume = metadata.resume
            if not resume:
                break
        changes = difference(self._known, found)
        self._known, self._version = found, metadata.resource_version
        if changes:
            self._deliver(changes)

    def _watch(self, connection: Connection, stop: Event) -> None:
        """Deliver events until the server ends the watch. Raises as `Connection.get`."""
        seconds = int(WATCH_SECONDS * (1 + random.random()))  # noqa: S311
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        started, count = time.monotonic(), 0
        with closing(self._get(connection, query, SILENCE_SECONDS)) as response:
            self._tell("")
            self._response = response
            try:
                # `interrupt` after this look finds the response; before it, the look finds `stop`.
                if stop.is_set():
                    return
                with suppress(ReadTimeoutError):
                    for line in _lines(response):
                        self._take(line)
                        count += 1
                        self._failures = 0
            finally:
                self._response = None
        if count == 0 and time.monotonic() - started < SHORT_SECONDS and not stop.is_set():
            raise RefusedByServerError(f"{self._resource.path}: the watch ended at once", 0)
        self._failures = 0

    def _take(self, line: bytes) -> None:
        """One event. Raises RefusedByServerError for an error, msgspec.DecodeError for no event."""
        event = msgspec.json.decode(line, type=WatchEvent)
        if event.type == "ERROR":
            raise _refused(self._resource.path, 0, bytes(event.object))
        if event.type != "BOOKMARK":
            change = self._decoder.change(event.object)
            if change is not None:
                gone = event.type == "DELETED"
                self._keep(Change(change.key, None) if gone else change, gone=gone)
        self._version = msgspec.json.decode(event.object, type=Versioned).metadata.resource_version

    def _keep(self, change: Change, *, gone: bool) -> None:
        old = self._known.pop(change.key, None)
        if not gone:
            self._known[change.key] = change
        if old != change and (old is not None or not gone):
            self._deliver([change])

    def _get(self, connection: Connection, query: dict[str, str], silence: float) -> HTTPResponse:
        """An answer of status 200. Raises RefusedByServerError, HTTPError, OSError."""
        selectors = {
            "labelSelector": self._resource.label_selector,
            "fieldSelector": self._resource.field_selector,
        }
        query |= {name: selector for name, selector in selectors.items() if selector}
        response = connection.get(self._resource.path, query, silence)
        if response.status == 200:
            return response
        with closing(response):
            if response.status == 400 and self._resource.may_drop_field:
                self._resource = self._resource._replace(field_selector="", may_drop_field=False)
                return self._get(connection, query, silence)
            raise _refused(self._resource.path, response.status, response.read(65536))


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    return (line for line in response if line.strip())


def _refused(path: str, code: int, body: bytes) -> RefusedByServerError:
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError as error:
        status = Status(message=f"no answer of an API server ({reason(error)})")
    code = code or status.code or 0
    text = status.message or status.reason or ""
    return RefusedByServerError(f"{path}: {code} {_one_line(text)}".strip(), code)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
