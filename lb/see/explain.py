"""`tidegate explain`: where a packet or a connect would go, and why.

The loaded texts decide, on the live tables; this only asks them, and tells what they did. Packets
are those of a device where traffic from outside enters, connects those of sockets on this node.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

from bpf import netlink, netns, tc
from bpf.layout import (
    Affinity,
    AffinityKey,
    Backend,
    ClientKind,
    EventKind,
    Flow,
    FlowState,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendType,
    Outcome,
    Peer,
    Question,
    Reason,
    Service,
    View,
)
from bpf.pins import Pins
from bpf.trial import Trial
from lb.address import Address, family, show, show_port
from lb.errors import BadInput
from lb.flows import alive
from lb.see.frame import Ends, build, read, readdressed, wrapped
from lb.see.lists import frontend_at, listed
from lb.see.slot import slot_of
from lb.see.spaces import cookie_of
from lb.see.story import story
from lb.see.who import Who
from lb.tables import Tables
from lb.traffic import pieces

Answer = dict[str, Any]
_NEXT, _DROP = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT
_SECOND = 10**9


class Asked(NamedTuple):
    """The service port at the destination, as far as there is one."""

    frontend: Frontend
    service: Service
    view: View


class Explainer:
    """Explains on one node's tables. `cgroup`: where its pods are."""

    def __init__(
        self, pins: Pins, tables: Tables, who: Who, run: Trial, cgroup: Path | None
    ) -> None:
        self._tables, self._who, self._trial, self._cgroup = tables, who, run, cgroup
        self._addresses = pins.open_hash("addresses")
        self._carriers = tc.carriers(tc.LB_IN)
        run.remember()

    def explain(
        self, ends: Ends, *, frame: bytes | None = None, socket: bool | None = None
    ) -> Answer:
        """Where it goes. `frame` None: the first packet of a connection.

        `socket`: a connect, or a packet; None: as its source is on this node or not. What is asked
        here changes what is asked next as real traffic would. Raises BadInput, OSError.
        """
        way = netlink.way_to(show(ends.source))
        if socket is None:
            socket = frame is None and way is not None and way.device not in self._carriers
        answer = {
            "verdict": "pass", "service": "", "frontend": "", "backend": "", "algorithm": "",
            "mode": "", "reason": "", "protocol": ends.protocol.name,
            "source": show_port(ends.source, ends.source_port),
            "destination": show_port(ends.destination, ends.destination_port),
            "source_pod": self._who.pod(ends.source), "via": "socket" if socket else "device",
        }  # fmt: skip
        asked = self._asked(ends, socket=socket)
        if asked is not None:
            answer |= self._of_service(asked, ends)
        if socket:
            answer |= self._connect(ends, asked, is_own=way is not None and way.is_local)
        else:
            answer |= self._packet(ends, asked, frame, way)
        return answer | {"story": story(answer)}

    def _asked(self, ends: Ends, *, socket: bool) -> Asked | None:
        record = frontend_at(self._tables, self._addresses, ends)
        if record is None:
            return None
        service = Service.unpack(self._tables.services.read(record.service))
        view = View.INSIDE if socket else View.OUTSIDE
        if record.type == FrontendType.CLUSTER_IP:
            view = View.CLUSTER_IP
        return Asked(record, service, view)

    def _of_service(self, asked: Asked, ends: Ends) -> Answer:
        ids = listed(self._tables, asked.service.view[asked.view])
        return {
            "service": self._who.service(asked.frontend.service),
            "frontend": show_port(ends.destination, ends.destination_port),
            "frontend_type": FrontendType(asked.frontend.type).name.lower(),
            "view": asked.view.name.lower(),
            "has_ranges": bool(asked.frontend.flags & FrontendFlag.RANGES),
            "affinity_seconds": asked.service.affinity_seconds,
            "candidates": [self._place(one) for one in ids],
        }

    def _place(self, backend: int) -> str:
        record = Backend.unpack(self._tables.backends.read(backend))
        return show_port(Address(record.address), record.port)

    def _chosen(self, backend: int, address: bytes, port: int) -> Answer:
        """What is known of the backend that the program chose."""
        found: Answer = {
            "backend": show_port(Address(address), port),
            "backend_pod": self._who.pod(address),
            "backend_node": self._who.node(backend),
        }
        return found

    def _remembered(self, client: bytes, kind: ClientKind, asked: Asked) -> bool:
        """Is the client remembered by session affinity, in time?"""
        if not asked.service.affinity_seconds:
            return False
        raw = self._trial.affinity.get(AffinityKey(client, asked.frontend.service, kind).pack())
        if raw is None:
            return False
        memory = Affinity.unpack(raw)
        age = time.monotonic_ns() - memory.used
        return (
            memory.epoch == asked.service.affinity_epoch
            and age < asked.service.affinity_seconds * _SECOND
        )

    def _connect(self, ends: Ends, asked: Asked | None, *, is_own: bool) -> Answer:
        cookie = netns.cookie() if is_own else cookie_of(show(ends.source), self._cgroup)
        remembered = False
        if asked is not None:
            client = struct.pack("<8xII", cookie >> 32, cookie & 0xFFFFFFFF)
            remembered = self._remembered(client, ClientKind.NETNS, asked)
        question = Question(
            ends.source, ends.destination, ends.destination_port, ends.protocol, 0, 0, cookie,
            bytes(Peer.SIZE),
        )  # fmt: skip
        got = self._trial.connect(question)
        to = Peer.unpack(got.to)
        found: Answer = {"mode": "socket", "source_known": bool(cookie)}
        match Outcome(got.outcome):
            case Outcome.FOREIGN:
                return {"mode": ""}
            case Outcome.REFUSE:
                return found | {"verdict": "reject", "reason": Reason.NO_BACKEND.name.lower()}
            case Outcome.DROP:
                return found | {"verdict": "drop", "reason": Reason.NO_LOCAL_BACKEND.name.lower()}
        found |= self._chosen(to.backend, to.address, to.port)
        found |= {"algorithm": "random", "remembered": remembered}
        if not got.allowed:
            return found | {"verdict": "drop", "reason": Reason.SOURCE_RANGE.name.lower()}
        way = netlink.way_to(show(Address(to.address)))
        record = Backend.unpack(self._tables.backends.read(to.backend))
        local = bool(record.views & 128)  # BACKEND_HERE
        return found | {
            "verdict": "local" if local else "forward",
            "device_out": way.device if way is not None else "",
        }

    def _packet(
        self, ends: Ends, asked: Asked | None, frame: bytes | None, way: netlink.Way | None
    ) -> Answer:
        if way is None:
            raise BadInput(f"{show(ends.source)}: this node has no route there; where is it from?")
        device = way
        if way.device not in self._carriers:
            if not self._carriers:
                raise BadInput("no device of this node carries the packet programs")
            found = netlink.device(self._carriers[0])
            device = found if found is not None else way
        sent = build(ends, device.mac) if frame is None else readdressed(frame, device.mac)
        remembered = asked is not None and self._remembered(ends.source, ClientKind.ADDRESS, asked)
        ran, events = self._trial.packet(sent, device.number)
        answer: Answer = {"device_in": device.device, "remembered": remembered}
        drop = next((one for one in events if one.kind == EventKind.DROP), None)
        new = next((one for one in events if one.kind == EventKind.FLOW), None)
        if drop is not None:
            said = Reason(drop.reason).name.lower()
            return answer | {
                "verdict": "drop" if ran.verdict == _DROP else "reject", "reason": said,
            }  # fmt: skip
        after = read(ran.packet)
        if new is None and ran.verdict == _NEXT and after == ends:
            return answer | {"verdict": "pass"}
        answer["verdict"] = "local" if ran.verdict == _NEXT else "forward"
        outer = wrapped(ran.packet)
        if outer is not None:
            number = new.id if new is not None else 0
            out = netlink.way_to(show(outer.backend))
            return answer | {
                "mode": "dsr",
                "dispatch": outer.dispatch.value,
                "flow": "begins" if new is not None else "established",
                "algorithm": _algorithm(asked) if new is not None else "",
                **self._chosen(number, outer.backend, outer.port),
                "sent": {
                    "source": show(outer.source),
                    "destination": show_port(outer.backend, outer.port),
                },
                "device_out": out.device if out is not None else "",
            }
        flow = self._flow(ends)
        if flow is not None:
            answer |= self._of_flow(flow, ends, asked, is_new=new is not None)
        if after is not None:
            answer["sent"] = {
                "source": show_port(after.source, after.source_port),
                "destination": show_port(after.destination, after.destination_port),
            }
            out = netlink.way_to(show(after.destination))
            answer["device_out"] = out.device if out is not None else ""
        return answer

    def _flow(self, ends: Ends) -> Flow | None:
        """The flow that a packet belongs to, whichever end sent it."""
        now = time.monotonic_ns()
        for piece in pieces(self._trial.flows):
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

    def _of_flow(self, flow: Flow, ends: Ends, asked: Asked | None, *, is_new: bool) -> Answer:
        known = "begins" if is_new else FlowState(flow.state).name.lower()
        found: Answer = {
            "service": self._who.service(flow.service),
            "frontend": show_port(Address(flow.frontend), flow.frontend_port),
            "mode": Forwarding(flow.mode).name.lower(),
            "flow": known,
            "port": flow.port or None,
            **self._chosen(flow.id, flow.backend, flow.backend_port),
        }
        if flow.client != ends.source:
            return found | {"answers": show_port(Address(flow.client), flow.client_port)}
        if asked is None or not is_new:
            return found
        found["algorithm"] = _algorithm(asked)
        if found["algorithm"] == "maglev":
            sticky = bool(asked.service.affinity_seconds)
            slot, slots = slot_of(ends, asked.service.ring, client_only=sticky)
            found["ring"] = {"slot": slot, "slots": slots}
        return found


def _algorithm(asked: Asked | None) -> str:
    """How the program chooses for a packet of the view: bpf/service.h."""
    if asked is not None and asked.service.ring and asked.view is View.OUTSIDE:
        return "maglev"
    return "hash"


def same_family(ends: Ends) -> Ends:
    """The ends, if both are of one family. Raises BadInput."""
    if family(ends.source) is not family(ends.destination):
        raise BadInput(
            f"{show(ends.source)} and {show(ends.destination)} are of different IP families"
        )
    return ends
