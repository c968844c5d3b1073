"""Kubernetes events: what `kubectl get events` and `describe` show of this agent's troubles.

As kube-proxy records them (`events.k8s.io/v1`, reporting controller `kube-proxy`), and a few more
of the same form. Best effort: they never hold anybody up, a flood of them is cut off, and what the
API server does not take is dropped. Not for logs, which say the same and more.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from lb.hostports import service_name, shown
from lb.model import Kind, ServiceName
from lb.sources.notes import ANNOTATION
from lb.sources.reflector import Failed
from lb.turn import Turn

log = logging.getLogger("tidegate.events")

CONTROLLER = "kube-proxy"
"""Who reports, as tools for kube-proxy filter by it."""
LIMITS = "kubernetes.io/"
"""Begins the annotations of pods that are read."""
API = "events.k8s.io/v1"
LONGEST_NOTE = 1024
"""Characters that the API takes."""
NORMAL, WARNING = "Normal", "Warning"
START = "StartKubeProxy"
SERIES_SECONDS = 360.0
"""An event that comes again within this time is the same one, counted (client-go's figure)."""
BURST, REFILL_SECONDS = 25, 10.0
"""So many events at once, and then one in this time."""
RETRY_SECONDS = (1.0, 5.0, 10.0)
_MOST = 100


class Event(NamedTuple):
    """What happened to an object. `namespace` is empty for a Node."""

    kind: str
    namespace: str
    name: str
    type: str
    reason: str
    action: str
    note: str = ""


def of_node(name: str, reason: str, note: str = "") -> Event:
    """Of the node, as kube-proxy reports its start and what stands in its way."""
    return Event("Node", "", name, WARNING if note else NORMAL, reason, START, note)


def of_service(name: ServiceName, reason: str, action: str, note: str) -> Event:
    """A warning about a service, or about a pod with host ports."""
    kind, (namespace, own) = shown(name)
    return Event(kind, namespace, own, WARNING, reason, action, note)


def body(event: Event, now: float, instance: str) -> dict[str, Any]:
    """The object to be created; `now` in seconds since the epoch, `instance` names the agent."""
    named = f"{event.namespace}/{event.name}" if event.namespace else event.name
    regarding = {"kind": event.kind, "name": event.name, "uid": named}
    if event.namespace:
        regarding["namespace"] = event.namespace
    return {
        "apiVersion": API,
        "kind": "Event",
        "metadata": {
            "name": f"{event.name}.{round(now * 1e6) * 1000:x}",
            "namespace": event.namespace or "default",
        },
        "eventTime": _stamp(now),
        "reportingController": CONTROLLER,
        "reportingInstance": f"{CONTROLLER}-{instance}"[:128],
        "action": event.action,
        "reason": event.reason,
        "regarding": regarding,
        "note": event.note[:LONGEST_NOTE],
        "type": event.type,
    }


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_NAMES = {Kind.SERVICE: ServiceName, Kind.POD: service_name}
"""Of what has annotations of ours: under which name it stands among the services."""


def of_turn(turn: Turn) -> Iterator[Event]:
    """Services that fail, and annotations of ours, and bandwidths, that cannot be read."""
    for unit, error in turn.failed.items():
        yield of_service(unit.service, "FailedToProgramService", "Program", f"{unit}: {error}")
    for one in turn.refused:
        kind, _, named = one.subject.partition(" ")
        namespace, _, name = named.partition("/")
        if one.wrong and kind == Kind.POD and one.reason.startswith(LIMITS):
            yield Event("Pod", namespace, name, WARNING, "InvalidAnnotation", "Limit", one.reason)
        elif one.wrong and kind in _NAMES and one.reason.startswith(ANNOTATION):
            found = _NAMES[Kind(kind)](namespace, name)
            yield of_service(found, "InvalidAnnotation", "Read", f"{one.reason}; the default holds")


Send = Callable[[str, str, bytes], None]
"""Method, path and JSON to the API server. Raises Failed."""
_LATER = frozenset({0, 401, 408, 429})
"""Codes of what may be taken at another try, beside those of the server's own faults."""


class _Series:
    """An event that was created, and how often it came."""

    def __init__(self, path: str, at: float) -> None:
        self.path, self.count, self.at = path, 1, at


class Recorder:
    """Sends from a thread of its own, which begins with the first event; nothing without `send`."""

    def __init__(
        self,
        send: Send | None,
        instance: str,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._send, self._instance, self._clock, self._pause = send, instance, clock, pause
        self._queue: queue.Queue[Event] = queue.Queue(_MOST)
        self._series: dict[Event, _Series] = {}
        self._room, self._refilled = float(BURST), clock()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def record(self, event: Event) -> None:
        """Send it by and by. For any thread; never waits."""
        if self._send is None:
            return
        with self._lock:
            now = self._clock()
            self._room = min(BURST, self._room + (now - self._refilled) / REFILL_SECONDS)
            self._refilled = now
            if self._room < 1 or self._queue.full():
                self.dropped += 1
                return
            self._room -= 1
            self._queue.put_nowait(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()

    def follow(self, turn: Turn) -> None:
        """A follower of the controller."""
        for event in of_turn(turn):
            self.record(event)

    def flush(self, seconds: float) -> None:
        """Wait until all is sent, and no longer than that."""
        deadline = time.monotonic() + seconds
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._queue.all_tasks_done.wait(left)

    def _run(self) -> None:
        while True:
            event = self._queue.get()
            try:
                self._deliver(event)
            except Failed as error:
                self.dropped += 1
                lost = {"reason": event.reason, "object": event.name, "err": str(error)}
                log.info("Event is dropped", extra=lost)
            finally:
                self._queue.task_done()

    def _deliver(self, event: Event) -> None:
        now = self._clock()
        self._series = {
            one: series for one, series in self._series.items() if now - series.at < SERIES_SECONDS
        }
        series = self._series.get(event)
        if series is not None:
            series.count += 1
            series.at = now
            again = {"series": {"count": series.count, "lastObservedTime": _stamp(now)}}
            try:
                self._try("PATCH", series.path, again)
            except Failed:
                del self._series[event]  # it has expired: events live for an hour
            else:
                return
        made = body(event, now, self._instance)
        path = f"/apis/{API}/namespaces/{quote(made['metadata']['namespace'])}/events"
        self._try("POST", path, made)
        self._series[event] = _Series(f"{path}/{quote(made['metadata']['name'])}", now)

    def _try(self, method: str, path: str, value: dict[str, Any]) -> None:
        assert self._send is not None  # noqa: S101 - else nothing was queued
        raw = json.dumps(value).encode()
        for seconds in RETRY_SECONDS:
            try:
                self._send(method, path, raw)
            except Failed as error:
                if error.code not in _LATER and error.code < 500:
                    raise
                self._pause(seconds)
            else:
                return
        self._send(method, path, raw)
