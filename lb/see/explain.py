"""`tidegate explain`: where a packet or a connect would go, and why.

The loaded texts decide, on the live tables; this only asks them, and tells what they did. Not for
whether it is a connect or a packet, and of which device: that is `lb.see.whence`.
"""

from __future__ import annotations

import struct
import time

from bpf.layout import (
    Affinity,
    AffinityKey,
    Asker,
    ClientKind,
    EventKind,
    FrontendFlag,
    FrontendType,
    Outcome,
    Peer,
    Question,
    Reason,
    Service,
    View,
)
from bpf.module import Text
from bpf.netlink import Way
from bpf.texts import EXPLAIN, LB_IN, LB_OUT, LEAVING, POD_IN
from bpf.trial import Trial
from lb.address import family, show, show_port
from lb.errors import BadInput
from lb.see.answer import (
    NEXT,
    Answer,
    Asked,
    Words,
    algorithm,
    device_to,
    dropped,
    ends_sent,
    flow_of,
)
from lb.see.frame import Ends, build, read, readdressed, wrapped
from lb.see.story import story
from lb.see.whence import Places, Whence
from lb.see.who import Who
from lb.tables import Tables

_SECOND = 10**9
VIA = {Asker.SOCKET: "socket", Asker.POD: "pod", Asker.OUTSIDE: "device"}


class Explainer:
    """Explains on one node's tables. In its network namespace."""

    def __init__(self, tables: Tables, who: Who, run: Trial, places: Places) -> None:
        self._tables, self._who, self._trial, self._places = tables, who, run, places
        self._words = Words(tables, who)

    def explain(
        self, ends: Ends, *, frame: bytes | None = None, socket: bool | None = None
    ) -> Answer:
        """Where it goes. `frame` None: the first packet of a connection.

        `socket`: a connect, or a packet; None: what the node sees first of this client. What is
        asked here changes what is asked next as real traffic would. Raises BadInput, OSError.
        """
        if frame is not None:
            socket = False
        whence = self._places.of(show(ends.source), socket=socket)
        return self.explain_from(whence, ends, frame)

    def explain_from(self, whence: Whence, ends: Ends, frame: bytes | None = None) -> Answer:
        """The same for a client of which it is known where the data path meets it."""
        self._trial.load(EXPLAIN, *([whence.text] if whence.text else []))
        answer = {
            "verdict": "pass", "service": "", "frontend": "", "backend": "", "algorithm": "",
            "mode": "", "reason": "", "protocol": ends.protocol.name,
            "source": show_port(ends.source, ends.source_port),
            "destination": show_port(ends.destination, ends.destination_port),
            "source_pod": self._who.pod(ends.source), "via": VIA[whence.asker],
        }  # fmt: skip
        question = Question(
            ends.source, ends.destination, ends.destination_port, ends.protocol, whence.counts_as,
            0, 0, 0, 0, 0, 0, whence.cookie, 0, bytes(Peer.SIZE),
        )  # fmt: skip
        asked = self._asked(question)
        if asked is not None:
            answer |= self._words.of_service(asked, ends)
        if whence.device is None or whence.text is None:
            answer |= self._connect(question, asked)
        else:
            answer |= self._packet(ends, asked, frame, whence.device, whence.text)
        if answer["verdict"] == "pass":
            answer |= self._leaving(ends, frame, whence.text)
        return answer | {"story": story(answer)}

    def _asked(self, question: Question) -> Asked | None:
        found = self._trial.frontend(question)
        if not found.found:
            return None
        return Asked(
            found.service,
            FrontendType(found.type),
            bool(found.flags & FrontendFlag.RANGES),
            bool(found.allowed),
            Service.unpack(self._tables.services.read(found.service)),
            View(found.view),
        )

    def _remembered(self, client: bytes, kind: ClientKind, asked: Asked) -> bool:
        """Is the client remembered by session affinity, in time?"""
        if not asked.service.affinity_seconds:
            return False
        raw = self._trial.affinity.get(AffinityKey(client, asked.service_id, kind).pack())
        if raw is None:
            return False
        memory = Affinity.unpack(raw)
        age = time.monotonic_ns() - memory.used
        return (
            memory.epoch == asked.service.affinity_epoch
            and age < asked.service.affinity_seconds * _SECOND
        )

    def _connect(self, question: Question, asked: Asked | None) -> Answer:
        remembered = False
        if asked is not None:
            cookie = question.netns
            client = struct.pack("<8xII", cookie >> 32, cookie & 0xFFFFFFFF)
            remembered = self._remembered(client, ClientKind.NETNS, asked)
        got = self._trial.connect(question)
        to = Peer.unpack(got.to)
        found: Answer = {"mode": "socket", "source_known": bool(question.netns)}
        match Outcome(got.outcome):
            case Outcome.FOREIGN:
                return {"mode": ""}
            case Outcome.REFUSE:
                return found | {"verdict": "reject", "reason": Reason.NO_BACKEND.name.lower()}
            case Outcome.NO_PORT:
                return found | {"verdict": "reject", "reason": Reason.NO_SERVICE_PORT.name.lower()}
            case Outcome.DROP:
                return found | {"verdict": "drop", "reason": Reason.NO_LOCAL_BACKEND.name.lower()}
        found |= self._words.chosen(to.backend, to.address, to.port)
        found |= {"algorithm": "random", "remembered": remembered}
        if asked is not None and not asked.allowed:
            return found | {"verdict": "drop", "reason": Reason.SOURCE_RANGE.name.lower()}
        return found | {
            "verdict": "local" if self._words.is_here(to.backend) else "forward",
            "device_out": device_to(to.address),
        }

    def _packet(
        self, ends: Ends, asked: Asked | None, frame: bytes | None, device: Way, text: Text
    ) -> Answer:
        sent = build(ends, device.mac) if frame is None else readdressed(frame, device.mac)
        remembered = asked is not None and self._remembered(ends.source, ClientKind.ADDRESS, asked)
        program = POD_IN if POD_IN in text.programs else LB_IN
        ran, events = self._trial.packet(text, program, sent, device.number)
        answer: Answer = {"device_in": device.device, "remembered": remembered}
        new = next((one for one in events if one.kind == EventKind.FLOW), None)
        if ended := dropped(ran, events):
            return answer | ended
        after = read(ran.packet)
        if new is None and ran.verdict == NEXT and after == ends:
            return answer | {"verdict": "pass"}
        answer["verdict"] = "local" if ran.verdict == NEXT else "forward"
        outer = wrapped(ran.packet)
        if outer is not None:
            return answer | {
                "mode": "dsr",
                "dispatch": outer.dispatch.value,
                "flow": "begins" if new is not None else "established",
                "algorithm": algorithm(asked) if new is not None else "",
                **self._words.chosen(new.id if new is not None else 0, outer.backend, outer.port),
                "sent": {
                    "source": show(outer.source),
                    "destination": show_port(outer.backend, outer.port),
                },
                "device_out": device_to(outer.backend),
            }
        if new is not None:
            answer |= self._words.of_new(new, ends, asked)
        elif (flow := flow_of(self._trial.flows, ends)) is not None:
            answer |= self._words.of_flow(flow, ends)
        if after is not None:
            answer["sent"] = ends_sent(after)
            answer["device_out"] = device_to(after.destination)
        return answer

    def _leaving(self, ends: Ends, frame: bytes | None, loaded: Text | None) -> Answer:
        """What becomes of it where it leaves the node, as it came; `loaded` may have the program.

        On its way out nobody asks whether the device is pods'.
        """
        device = self._places.leaves_by(show(ends.destination))
        if device is None:
            return {}
        sent = build(ends, device.mac) if frame is None else readdressed(frame, device.mac)
        text = loaded if loaded is not None and LB_OUT in loaded.programs else LEAVING
        ran, events = self._trial.packet(text, LB_OUT, sent, device.number)
        if ended := dropped(ran, events):
            return ended
        after = read(ran.packet)
        flow = flow_of(self._trial.flows, ends) if after not in (None, ends) else None
        if flow is None or after is None:
            return {}
        return self._words.of_flow(flow, ends) | {
            "verdict": "forward",
            "device_out": device.device,
            "sent": ends_sent(after),
        }


def same_family(ends: Ends) -> Ends:
    """The ends, if both are of one family. Raises BadInput."""
    if family(ends.source) is not family(ends.destination):
        raise BadInput(
            f"{show(ends.source)} and {show(ends.destination)} are of different IP families"
        )
    return ends
