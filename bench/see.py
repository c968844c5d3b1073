"""What being seen costs: ns a packet in XDP without counters, with them, with a monitor attached.

`python -m bench.see`. All in one run, the three taken in turn, the least of many short rounds, as
bench/packet.py has it. The monitor reads all that it is told, new connections one by one.
Throughput is of one CPU, as a part of that without counters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.packet import XDP_REDIRECT, Restoring, Row, begin, prepared
from bench.report import report
from bpf.netns import entered
from lb.model import Way
from lb.see.listening import heard
from tests.packet.bench import Bench, standing
from tests.packet.net import V4, V6
from tests.packet.packets import tcp

ROUNDS, RUNS = 40, 5_000
ROWS = (
    Row("DSR, 1,024 known flows", V4, tcp, "A", 1 << 10, XDP_REDIRECT),
    Row("DSR, IPv6, 1,024 known flows", V6, tcp, "A", 1 << 10, XDP_REDIRECT),
    Row("DSR, new flow", V4, tcp, "S", 1 << 26, XDP_REDIRECT),
    Row("SNAT, 1,024 known flows", V4, tcp, "A", 1 << 10, XDP_REDIRECT, way=Way.SNAT),
)
WAYS = ("without counters", "with counters", "with a monitor")


@contextmanager
def listened(made: Bench) -> Iterator[None]:
    """Somebody reads all that there is to hear."""
    over = threading.Event()

    def read() -> None:
        with heard(made.pins) as listener:
            for _ in listener.batches():
                if over.is_set():
                    return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _round(made: Bench, row: Row, restoring: Restoring) -> float:
    """Ns a packet."""
    if "new" in row.name:
        made.forget()
    ran = restoring.run("measure", made.device, RUNS)
    if ran.verdict != row.verdict:
        raise SystemExit(f"{row.name}: verdict {ran.verdict}")
    return ran.duration - restoring.run("around", made.device, RUNS).duration


def _ready(made: Bench, row: Row) -> Restoring:
    """Its flows are known, but for those of a row of new ones."""
    restoring, give = prepared(made, row)
    give()
    with entered(made.namespace):
        if "new" not in row.name:
            begin(made, restoring, row)
    restoring.give(row.flows)
    return restoring


def measured(off: Bench, on: Bench) -> list[dict[str, Any]]:
    """Every row in the three ways."""
    rows = []
    for row in ROWS:
        least = dict.fromkeys(WAYS, 1e9)
        ready = {made: _ready(made, row) for made in (off, on)}
        for _ in range(ROUNDS):
            for way, made in zip(WAYS, (off, on, on), strict=True):
                with entered(made.namespace), ExitStack() as stack:
                    if way == "with a monitor":
                        stack.enter_context(listened(made))
                    least[way] = min(least[way], _round(made, row, ready[made]))
        bare = least[WAYS[0]]
        rows.append(
            {"packet": row.name}
            | {f"{way} ns": ns for way, ns in least.items()}
            | {f"{way}, throughput": bare / ns for way, ns in least.items()}
        )
    return rows


def main() -> None:
    """Measures and reports."""
    with standing(COUNTING="0") as off, standing() as on:
        rows = measured(off, on)
    report("see", rows, list(rows[0]))


if __name__ == "__main__":
    main()
