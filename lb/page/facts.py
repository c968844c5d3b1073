"""What the page shows, as JSON values: the rows of `show`, and shares of Maglev rings.

Reading all maps costs, so that all who look within a second share one look.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpf.layout import Backend
from bpf.pins import Pins
from lb.address import Address, show_port
from lb.errors import BadInput
from lb.looking import rows
from lb.restore import restore
from lb.see.asking import explained
from lb.tables import Tables, in_kernel
from lb.words import flattened

WHAT = ("services", "backends", "limits", "drops")
FRESH_SECONDS = 1.0


class Facts:
    """For any thread. `status` is the agent's own answer, `kept` its program cache."""

    def __init__(
        self,
        bpffs: Path,
        api_socket: Path,
        status: Callable[[], dict[str, Any]],
        kept: Path | None,
    ) -> None:
        self._bpffs, self._api_socket, self._status = bpffs, api_socket, status
        self._kept = kept
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._taken = float("-inf")
        self._latest: dict[str, Any] = {}

    def all(self) -> dict[str, Any]:
        """Status, services, backends, limits, drops; `time` in seconds. Raises KernelRefused."""
        with self._lock:
            if time.monotonic() - self._taken > FRESH_SECONDS:
                found: dict[str, Any] = {
                    what: rows(what, self._bpffs, self._api_socket) for what in WHAT
                }
                found["limits"] = flattened("limits", found["limits"])
                self._taken = time.monotonic()
                self._latest = found | {"time": self._taken, "status": self._status()}
            return self._latest

    def rings(self, namespace: str, name: str, port: str) -> list[dict[str, Any]]:
        """A service port's rings: slots, and how many of them each backend has. Raises OSError."""
        tables = in_kernel(Pins(self._bpffs))
        found = []
        for unit, placed in restore(tables).units.items():
            if (unit.service.namespace, unit.service.name, unit.port) != (namespace, name, port):
                continue
            if placed.ring:
                shares = shares_of(tables, placed.ring)
                found.append({
                    "family": unit.family.label,
                    "protocol": unit.protocol.name,
                    "slots": placed.ring & 0xFFFFFFFF,
                    "shares": shares,
                })  # fmt: skip
        return found

    def explain(self, query: dict[str, str]) -> dict[str, Any]:
        """One explanation; one at a time, since each compiles. Raises BadInput, KernelRefused."""
        if query.get("protocol") not in ("tcp", "udp"):
            raise BadInput("protocol: tcp or udp")
        flags = {
            "capture": None, "from_pod": None, "via": None, "protocol": query["protocol"],
            "source": query.get("source", ""), "destination": query.get("destination", ""),
            "bpffs": self._bpffs, "api_socket": self._api_socket,
            "program_cache": self._kept,
        }  # fmt: skip
        with self._asking:
            return explained(flags)[0]


def shares_of(tables: Tables, ring: int) -> list[dict[str, Any]]:
    """How many slots of a ring each backend has, by address. `ring`: the service's word."""
    first, slots = ring >> 32, ring & 0xFFFFFFFF
    raw = tables.rings.read(first // 2, (first + slots + 1) // 2 - first // 2)
    ids = array("I", raw)[first % 2 : first % 2 + slots]
    found = []
    for number, count in Counter(ids).items():
        record = Backend.unpack(tables.backends.read(number))
        found.append({"backend": show_port(Address(record.address), record.port), "slots": count})
    return sorted(found, key=lambda one: one["backend"])
