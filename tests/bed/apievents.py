"""Events on the stand-in API server: created, changed and listed, and refused as the API refuses.

The rules are those of events.k8s.io/v1 (k8s.io/kubernetes, pkg/apis/core/validation/events.go).
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

LIST = "/apis/events.k8s.io/v1/events"
_CREATE = re.compile(r"/apis/events\.k8s\.io/v1/namespaces/([a-z0-9-]+)/events")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
CREATED, OK, NOT_FOUND, UNSUPPORTED, INVALID = 201, 200, 404, 415, 422


class Events:
    """All events, by their paths."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Notified of every write."""
        self.all: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        """What was wrong with those that were refused."""

    def write(self, method: str, path: str, kind: str, raw: bytes) -> int:
        """POST or PATCH; the code to answer with."""
        with self.changed:
            code = self._create(path, raw) if method == "POST" else self._patch(path, kind, raw)
            self.changed.notify_all()
            return code

    def text(self) -> bytes:
        """All of them as a list."""
        with self.changed:
            return json.dumps({"kind": "EventList", "items": list(self.all.values())}).encode()

    def _create(self, path: str, raw: bytes) -> int:
        where = _CREATE.fullmatch(path)
        if where is None:
            return NOT_FOUND
        event = json.loads(raw)
        faults = _faults(event, where[1])
        if faults:
            self.faults += faults
            return INVALID
        self.all[f"{path}/{event['metadata']['name']}"] = event
        return CREATED

    def _patch(self, path: str, kind: str, raw: bytes) -> int:
        if path not in self.all:
            return NOT_FOUND
        if kind != "application/merge-patch+json":
            return UNSUPPORTED
        self.all[path] |= json.loads(raw)
        return OK


def _faults(event: dict[str, Any], namespace: str) -> list[str]:
    regarding = event["regarding"]
    rules = {
        "apiVersion and kind": (event["apiVersion"], event["kind"])
        == ("events.k8s.io/v1", "Event"),
        "namespace of the path": event["metadata"]["namespace"] == namespace,
        "namespace of what it regards": regarding.get("namespace", "default") == namespace,
        "name": bool(_NAME.fullmatch(event["metadata"]["name"])),
        "eventTime": bool(_TIME.fullmatch(event["eventTime"])),
        "reportingController": bool(event["reportingController"]),
        "reportingInstance": 0 < len(event["reportingInstance"]) <= 128,
        "action": 0 < len(event["action"]) <= 128,
        "reason": 0 < len(event["reason"]) <= 128,
        "note": len(event["note"]) <= 1024,
        "type": event["type"] in ("Normal", "Warning"),
    }
    return [rule for rule, holds in rules.items() if not holds]
