"""Runs the data path's own texts on made-up packets, and disturbs nothing.

They are loaded once more, as the agent's compiler made them, over the live tables where they only
read, and over private ones where they write: flows, memories, counters, events. Nothing is
attached, and all is gone at the end.
Not for judging what came out: that is `lb.see.explain`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bpf import libbpf
from bpf.create import create
from bpf.layout import TABLES, Event, Listener, Question
from bpf.maps import KernelArray, KernelHash, open_array, open_hash
from bpf.module import Compiling, Job, Program, Text
from bpf.pins import Pins
from bpf.probe import has_set_retval
from bpf.ring import Ring
from bpf.texts import (
    EXPLAIN,
    EXPLAIN_CONNECT,
    EXPLAIN_FRONTEND,
    FOREIGN_POD,
    LB,
    LEAVING,
    LOCAL_LB,
    POD,
)

WRITTEN = (
    "affinity", "allowances", "connected", "counters", "dsr_flows", "events", "flows", "fragments",
    "hops", "listening", "loads", "reasons", "scratches", "unconnected",
)  # fmt: skip
"""Tables of which a trial has its own."""
PACKETS = (LB, LOCAL_LB, POD, FOREIGN_POD, LEAVING)
"""What a packet can be run through."""
_FOREVER = 2**63
_PIECE = 1024
"""Rows of flows to copy at once."""
_HEADER = bytes(12) + b"\x08\x00"
"""An Ethernet header in front of a question."""


class Trial:
    """Programs that can be run. Made by `trial`."""

    def __init__(self, pins: Pins, folder: Path, kept: Path | None) -> None:
        """Raises OSError."""
        self._pins, self._folder, self._kept = pins, folder, kept
        self._paths: dict[str, str] = {}
        self._entries: dict[str, int] = {}
        self._programs: dict[tuple[Text, Program], int] = {}
        self._has_flows = False
        for name in TABLES:
            live = pins.found(name)
            descriptor = libbpf.open_pin(str(live))
            self._entries[name] = libbpf.map_info(descriptor).max_entries or 1
            libbpf.close(descriptor)
            self._paths[name] = str(live if name not in WRITTEN else folder / name)
            if name in WRITTEN:
                own = create(name, self._entries[name])
                libbpf.pin(own, str(folder / name))
                libbpf.close(own)
        self.flows: KernelArray = open_array(folder / "flows")
        self._dsr_flows = open_array(folder / "dsr_flows")
        self.affinity: KernelHash = open_hash(folder / "affinity")
        open_array(folder / "listening").write(0, Listener(_FOREVER, 1, 0).pack())
        descriptor = libbpf.open_pin(str(folder / "events"))
        self._events = Ring(descriptor)
        libbpf.close(descriptor)

    def load(self, *texts: Text) -> None:
        """Sees to it that these can be run: side by side, before they are needed one by one.

        Raises CompileError, OSError.
        """
        known = {text for text, _ in self._programs}
        new = [text for text in texts if text not in known]
        if not new:
            return
        defines = {"HAVE_SET_RETVAL": "1" if has_set_retval() else "0"}
        first = len(self._programs)
        folders = {text: self._folder / str(first + n) for n, text in enumerate(new)}
        jobs = [
            Job(
                text.source, defines | dict(text.defines), self._paths, self._entries,
                text.programs, str(folder), str(self._kept or ""),
            )
            for text, folder in folders.items()
        ]  # fmt: skip
        Compiling(jobs).wait()
        for text, folder in folders.items():
            for one in text.programs:
                self._programs[text, one] = libbpf.open_pin(str(folder / one.name))

    def remember(self, *, flows: bool = True) -> None:
        """Flows and memories are those of the live tables from now on. Raises OSError.

        `flows` False: no flow is known, as before a client's first packet.
        """
        for name, own in (("flows", self.flows), ("dsr_flows", self._dsr_flows)):
            live = self._pins.open_array(name) if flows else None
            if live is None and not self._has_flows:
                continue
            for first in range(0, own.capacity, _PIECE):
                count = min(_PIECE, own.capacity - first)
                own.write(first, live.read(first, count) if live else bytes(count * own.size))
        self._has_flows = flows
        memories = dict(self._pins.open_hash("affinity").items())
        self.affinity.remove([key for key, _ in self.affinity.items() if key not in memories])
        if memories:
            self.affinity.put(memories)

    def packet(
        self, text: Text, program: Program, frame: bytes, device: int
    ) -> tuple[libbpf.Ran, list[Event]]:
        """What would become of a frame on the device of this index, and what is told of it.

        `text`: one of PACKETS; `program`: of those that it has. In this thread's network
        namespace. Raises CompileError, OSError.
        """
        self.load(text)
        self._has_flows = True
        ran = libbpf.test_run(self._programs[text, program], frame, device=device)
        return ran, [Event.unpack(raw) for raw in self._events.poll(0)]

    def frontend(self, question: Question) -> Question:
        """What the destination is to services. Raises CompileError, OSError."""
        return self._ask(EXPLAIN_FRONTEND, question)

    def connect(self, question: Question) -> Question:
        """Where a connect would go. Raises CompileError, OSError."""
        return self._ask(EXPLAIN_CONNECT, question)

    def _ask(self, program: Program, question: Question) -> Question:
        self.load(EXPLAIN)
        ran = libbpf.test_run(self._programs[EXPLAIN, program], _HEADER + question.pack())
        return Question.unpack(ran.packet[len(_HEADER) :])

    def close(self) -> None:
        """No program runs any more."""
        for descriptor in self._programs.values():
            libbpf.close(descriptor)
        self._events.close()


@contextmanager
def trial(pins: Pins, kept: Path | None = None) -> Iterator[Trial]:
    """A trial on these pins, in a folder of its own beside them.

    `kept`: where the agent keeps what its compiler made, which is then what runs.
    Raises CompileError, OSError.
    """
    folder = pins.folder / f"trial-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        made = Trial(pins, folder, kept)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder)
