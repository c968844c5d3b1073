"""Frames a second through a veth pair and back, as a share of what swap-and-return makes of them.

`python -m bench.veth`. One processor does it all: a generator (test runs of live frames, from
Linux 5.18 on) sends into the pair, the program under test has the frame at the other end and
sends it back, and a third program counts it there. `drop` ends frames where the others send them
back. Everything but the program under test is the same in all rows, taken in turn; a row is its
best round. The balancer works by direct server return.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from typing import Any, NamedTuple

from bench.packet import XDP_REDIRECT, Restoring, Row, begin, prepared
from bench.report import report
from bpf import libbpf
from bpf.netns import entered
from bpf.texts import LB_XDP
from tests.packet.bench import Bench, standing
from tests.packet.net import V4
from tests.packet.packets import tcp

ROUNDS, FRAMES, BATCH = 100, 20_000, 64
GOALS = {1 << 10: ("", 0.75), 1 << 16: (0.75, 0.54)}
"""By flows: the share that DESIGN asks for, and Katran's."""
_BPF, _TEST_RUN, _LIVE = 321, 10, 2  # x86-64's number; BPF_PROG_TEST_RUN; ..._TEST_XDP_LIVE_FRAMES
_DRV_MODE = 4  # XDP_FLAGS_DRV_MODE


class Case(NamedTuple):
    """A program at the far end, and what it is given."""

    name: str
    program: int
    flows: int


def send(program: int, frame: bytes, device: int, count: int) -> float:
    """Seconds that it takes to send so many frames out of a device. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    data = ctypes.create_string_buffer(frame, len(frame))
    context = struct.pack("=6I", 0, len(frame), 0, device, 0, 0)  # struct xdp_md
    held = ctypes.create_string_buffer(context, len(context))
    attributes = struct.pack(
        "=IIIIQQIIIIQQIII",
        program, 0, len(frame), 0, ctypes.addressof(data), 0, count, 0, len(context), 0,
        ctypes.addressof(held), 0, _LIVE, 0, BATCH,
    ).ljust(144, b"\0")  # fmt: skip
    start = time.perf_counter()
    if libc.syscall(_BPF, _TEST_RUN, attributes, len(attributes)) < 0:
        raise OSError(ctypes.get_errno(), "test run of live frames")
    return time.perf_counter() - start


def rates(made: Bench, restoring: Restoring, cases: list[Case], near: int) -> dict[Case, float]:
    """Millions of frames a second that came back, the best of all rounds."""
    best = dict.fromkeys(cases, 0.0)
    link = libbpf.open_pin(str(made.pins.links / f"xdp-native-{made.device}"))
    try:
        for turn in range(ROUNDS):
            for case in cases if turn % 2 else reversed(cases):
                libbpf.link_update(link, case.program)
                restoring.give(case.flows)
                before = restoring.came()
                seconds = send(restoring.program("send"), restoring.frame, near, FRAMES)
                came = restoring.came() - before if case.name != "drop" else FRAMES
                best[case] = max(best[case], came / seconds / 1e6)
    finally:
        libbpf.link_update(link, made.program(LB_XDP.name))
        os.close(link)
    return best


def measured(made: Bench) -> list[dict[str, Any]]:
    """A row a case."""
    row = Row("", V4, tcp, "A", max(GOALS), XDP_REDIRECT)
    restoring, give = prepared(made, row)
    give()
    balancer = made.program(LB_XDP.name)
    swap = Case("swap and return", restoring.program("least"), 1)
    cases = [
        Case("drop", restoring.program("sink"), 1),
        swap,
        *(Case(f"balanced, {flows:,} flows", balancer, flows) for flows in GOALS),
    ]
    with entered(made.namespace), made.on_a_wire(returns=True):
        near = socket.if_nametoindex("router")
        sink = libbpf.link_create(
            restoring.program("sink"), near, LB_XDP.attach_type, flags=_DRV_MODE
        )
        try:
            begin(made, restoring, row)
            best = rates(made, restoring, cases, near)
        finally:
            os.close(sink)
    goals = {f"balanced, {flows:,} flows": goal for flows, goal in GOALS.items()}
    return [
        {
            "program": case.name,
            "million a second": best[case],
            "of swap and return": best[case] / best[swap],
            "goal": goals.get(case.name, ("", ""))[0],
            "Katran, published": goals.get(case.name, ("", ""))[1],
        }
        for case in cases
    ]


def main() -> None:
    """Measures and reports."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with standing() as made:
        rows = measured(made)
    report("veth", rows, list(rows[0]))


if __name__ == "__main__":
    main()
