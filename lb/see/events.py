"""Events of the data path as rows and as lines of text, and the ones that somebody asked for.

Not for reading them (`lb.see.listening`).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from bpf.layout import Event, EventKind, Forwarding, Hook, Reason
from lb.address import Address, parse, show, show_port
from lb.errors import BadInput
from lb.model import Protocol
from lb.see.who import Who
from lb.words import REASONS

Row = dict[str, Any]
_NOBODY = bytes(16)
_PODS = ("client_pod", "backend_pod", "limited_pod")


def protocol(number: int) -> str:
    """Its name; a bandwidth limit also drops what is neither TCP nor UDP."""
    with suppress(ValueError):
        return Protocol(number).name
    return f"protocol {number}"


class Wanted(NamedTuple):
    """Which events somebody wants; None: any."""

    service: str | None = None
    pod: str | None = None
    address: str | None = None
    reason: str | None = None

    def checked(self) -> Wanted:
        """The same in the form that rows have. Raises BadInput."""
        for flag, text in (("--service", self.service), ("--pod", self.pod)):
            if text is not None and text.count("/") != 1:
                raise BadInput(f"{flag} {text}: write NAMESPACE/NAME")
        if self.reason is not None and self.reason not in REASONS:
            raise BadInput(f"--reason {self.reason}: one of {', '.join(REASONS)}")
        if self.address is None:
            return self
        try:
            return self._replace(address=show(parse(self.address)))
        except BadInput as error:
            raise BadInput(f"--address: {error}") from error

    def takes(self, row: Row) -> bool:
        """Is it one of those?"""
        return (
            (self.service is None or row["service"].partition(":")[0] == self.service)
            and (self.pod is None or self.pod in [row[field] for field in _PODS])
            and (self.reason is None or row["reason"] == self.reason)
            and (self.address is None or self.address in row["addresses"])
        )


def row(event: Event, who: Who, started: float) -> Row:
    """An event for people. `started`: seconds of the epoch when CLOCK_MONOTONIC was 0."""
    client = event.source
    client_text = _place(client, event.source_port)
    if client == _NOBODY and event.netns:
        client_text = who.netns(event.netns) or f"netns:{event.netns}"
        client = parse(client_text) if not client_text.startswith("netns:") else client
    reason = Reason(event.reason)
    limit = who.limit(event.id) if reason is Reason.BANDWIDTH else None
    backend = _place(event.backend, event.backend_port)
    addresses = [show(Address(one)) for one in (client, event.destination, event.backend)]
    return {
        "time": datetime.fromtimestamp(started + event.time / 1e9).astimezone().isoformat(),
        "event": EventKind(event.kind).name.lower(),
        "hook": Hook(event.hook).name.lower(),
        "protocol": protocol(event.protocol),
        "client": client_text,
        "client_pod": who.pod(client) if client != _NOBODY else "",
        "frontend": show_port(Address(event.destination), event.destination_port),
        "service": who.service(event.service),
        "backend": backend,
        "backend_pod": who.pod(event.backend) if backend else "",
        "backend_node": who.node(event.id) if reason is not Reason.BANDWIDTH else "",
        "mode": Forwarding(event.mode).name.lower() if event.kind == EventKind.FLOW else "",
        "port": event.port or None,
        "reason": reason.name.lower() if reason else "",
        "bytes": event.octets or None,
        "limited_pod": f"{limit.namespace}/{limit.pod}" if limit is not None else "",
        "direction": str(limit.direction) if limit is not None else "",
        "addresses": addresses,
    }


def _place(address: bytes, port: int) -> str:
    return "" if address == _NOBODY else show_port(Address(address), port)


def line(row: Row) -> str:
    """An event in one line, with names."""
    client = _with(row["client"], row["client_pod"])
    text = f"{row['time'][11:23]}  {row['event']:<7}  {row['protocol']}  {client}"
    text += f" -> {_with(row['frontend'], row['service'])}"
    if row["backend"]:
        at = f" on {row['backend_node']}" if row["backend_node"] else ""
        text += f" -> {_with(row['backend'], row['backend_pod'])}{at}"
    if row["mode"]:
        text += f"  {row['mode']}" + (f" by port {row['port']}" if row["port"] else "")
    if row["reason"]:
        text += f"  {row['reason']} ({REASONS[row['reason']]})"
    if row["limited_pod"]:
        text += f"  {row['direction']} of {row['limited_pod']}"
    return f"{text}  [{row['hook']}]"


def compact(row: Row) -> str:
    """An event in few words, addresses only."""
    ways = [row["client"], row["frontend"], row["backend"]]
    said = row["reason"] or row["mode"] or row["event"]
    return f"{row['time'][11:23]} {row['protocol']} {'>'.join(one for one in ways if one)} {said}"


def _with(text: str, name: str) -> str:
    return f"{text} ({name})" if name else text
