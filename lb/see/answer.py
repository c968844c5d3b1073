"""What the programs said and did, in the words of an explanation: fields of its answer.

From events, flows, frames and the records of the tables. Not for running anything.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from bpf import netlink
from bpf.layout import (
    Backend,
    BackendFlag,
    Event,
    EventKind,
    Flow,
    FlowState,
    Forwarding,
    FrontendType,
    Reason,
    Service,
    View,
)
from bpf.libbpf import Ran
from bpf.maps import Array
from lb.address import Address, show, show_port
from lb.flows import alive
from lb.see.frame import Ends
from lb.see.lists import listed
from lb.see.slot import slot_of
from lb.see.who import Who
from lb.tables import Tables
from lb.traffic import pieces

Answer = dict[str, Any]
NEXT, DROP = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT


class Asked(NamedTuple):
    """The service port at the destination: what the programs find there for this asker."""

    service_id: int
    type: FrontendType
    has_ranges: bool
    allowed: bool
    """Is the source in one of the ranges?"""
    service: Service
    view: View


class Words:
    """Looks up what ids and addresses mean, in `tables` and by `who`."""

    def __init__(self, tables: Tables, who: Who) -> None:
        self._tables, self._who = tables, who

    def of_service(self, asked: Asked, ends: Ends) -> Answer:
        """The service port, and who may be chosen of it."""
        ids = listed(self._tables, asked.service.view[asked.view])
        return {
            "service": self._who.service(asked.service_id),
            "frontend": show_port(ends.destination, ends.destination_port),
            "frontend_type": asked.type.name.lower(),
            "view": asked.view.name.lower(),
            "has_ranges": asked.has_ranges,
            "affinity_seconds": asked.service.affinity_seconds,
            "candidates": [self._place(one) for one in ids],
        }

    def _place(self, backend: int) -> str:
        record = Backend.unpack(self._tables.backends.read(backend))
        return show_port(Address(record.address), record.port)

    def chosen(self, backend: int, address: bytes, port: int) -> Answer:
        """What is known of the backend that the program chose."""
        found: Answer = {
            "backend": show_port(Address(address), port),
            "backend_pod": self._who.pod(address),
            "backend_node": self._who.node(backend),
        }
        return found

    def is_here(self, backend: int) -> bool:
        """Is the backend on this node?"""
        record = Backend.unpack(self._tables.backends.read(backend))
        return bool(record.views & BackendFlag.HERE)

    def of_new(self, new: Event, ends: Ends, asked: Asked | None) -> Answer:
        """A flow that begins, as the program tells it."""
        found: Answer = {
            "mode": Forwarding(new.mode).name.lower(),
            "flow": "begins",
            "port": new.port or None,
            "algorithm": algorithm(asked),
            **self.chosen(new.id, new.backend, new.backend_port),
        }
        if asked is not None and found["algorithm"] == "maglev":
            sticky = bool(asked.service.affinity_seconds)
            slot, slots = slot_of(ends, asked.service.ring, client_only=sticky)
            found["ring"] = {"slot": slot, "slots": slots}
        if self.is_here(new.id):
            found["verdict"] = "local"
        elif new.mode == Forwarding.LOCAL:  # of a pod: the stack sends it on, as it is
            found["verdict"] = "forward"
        return found

    def of_flow(self, flow: Flow, ends: Ends) -> Answer:
        """A flow that is known."""
        found: Answer = {
            "service": self._who.service(flow.service),
            "frontend": show_port(Address(flow.frontend), flow.frontend_port),
            "mode": Forwarding(flow.mode).name.lower(),
            "flow": FlowState(flow.state).name.lower(),
            "port": flow.port or None,
            **self.chosen(flow.id, flow.backend, flow.backend_port),
        }
        if flow.client != ends.source:
            return found | {"answers": show_port(Address(flow.client), flow.client_port)}
        if flow.mode == Forwarding.LOCAL and not self.is_here(flow.id):
            found["verdict"] = "forward"
        return found


def dropped(ran: Ran, events: list[Event]) -> Answer:
    """Verdict and reason of a packet that ends here; empty: it does not."""
    drop = next((one for one in events if one.kind == EventKind.DROP), None)
    if drop is None:
        return {}
    said = Reason(drop.reason).name.lower()
    return {"verdict": "drop" if ran.verdict == DROP else "reject", "reason": said}


def device_to(address: bytes) -> str:
    """The name of the device towards it; "": there is no way."""
    way = netlink.way_to(show(Address(address)))
    return way.device if way is not None else ""


def algorithm(asked: Asked | None) -> str:
    """How the program chooses for a packet of the view: bpf/service.h.

    `random` is the word of `--algorithm`: by a hash of the packet's ends, over the list itself.
    """
    if asked is not None and asked.service.ring and asked.view is View.OUTSIDE:
        return "maglev"
    return "random"


def flow_of(rows: Array, ends: Ends) -> Flow | None:
    """The flow in the table that a packet belongs to, whichever end sent it."""
    now = time.monotonic_ns()
    for piece in pieces(rows):
        for flow in alive(piece, now):
            forth = (flow.client, flow.client_port, flow.frontend, flow.frontend_port)
            back = (flow.backend, flow.backend_port)
            if flow.protocol != ends.protocol:
                continue
            if forth == ends[1:] or (
                back == ends[1:3] and ends.destination_port in (flow.port, flow.client_port)
            ):
                return flow
    return None


def ends_sent(after: Ends) -> dict[str, str]:
    """Both ends of what leaves, for people."""
    return {
        "source": show_port(after.source, after.source_port),
        "destination": show_port(after.destination, after.destination_port),
    }
