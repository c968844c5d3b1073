"""What being seen costs: ns a packet in XDP without counters, with them, with a monitor attached.

`python -m bench.see`. All in one run, the three taken in turn, the least of many short rounds, as
bench/packet.py has it. The monitor reads all that it is told, new connections one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.packet import XDP_REDIRECT, Restoring, Row, prepared
from bench.report import report
from bpf.netns import entered
from lb.see.listening import heard
from tests.packet.bench import Bench, standing
from tests.packet.net import V4
from tests.packet.packets import tcp

ROUNDS, RUNS = 20, 5_000
ROWS = (
    Row("DSR, 1,024 known flows", V4, tcp, "S", 1 << 10, XDP_REDIRECT),
    Row("DSR, new flow", V4, tcp, "S", 1 << 26, XDP_REDIRECT),
)


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


def _least(made: Bench, row: Row, restoring: Restoring, forget: bool) -> float:  # noqa: FBT001
    if forget:
        made.forget()
    ran = restoring.run("measure", made.device, RUNS)
    if ran.verdict != row.verdict:
        raise SystemExit(f"{row.name}: verdict {ran.verdict}")
    return ran.duration - restoring.run("around", made.device, RUNS).duration


def measured(off: Bench, on: Bench) -> list[dict[str, Any]]:
    """Every row in the three ways."""
    rows = []
    for row in ROWS:
        least = dict.fromkeys(("without counters ns", "with counters ns", "with a monitor ns"), 1e9)
        ways = []
        for made in (off, on):
            restoring, give = prepared(made, row)
            give()
            ways.append((made, restoring))
        new = "new" in row.name
        for _ in range(ROUNDS):
            for name, (made, restoring) in zip(least, (*ways, ways[1]), strict=True):
                with entered(made.namespace):
                    if name == "with a monitor ns":
                        with listened(made):
                            found = _least(made, row, restoring, new)
                    else:
                        found = _least(made, row, restoring, new)
                least[name] = min(least[name], found)
        rows.append({"packet": row.name} | least)
    return rows


def main() -> None:
    """Measures and reports."""
    with standing(COUNTING="0") as off, standing() as on:
        rows = measured(off, on)
    report("see", rows, list(rows[0]))


if __name__ == "__main__":
    main()
