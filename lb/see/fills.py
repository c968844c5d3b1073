"""How full the tables are of which the controller keeps no account; read when scraped.

Most are other parts' accounts. Only three tables are read for it, as wholes: clients that session
affinity remembers, 0.35 µs each in the kernel, connections that kube-proxy left, and those of
direct server return, 4 ms and 0.06 µs each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from bpf.layout import DsrRowSize
from bpf.maps import Array
from bpf.pins import Pins
from lb import direct
from lb.here import Cidrs
from lb.limits.manager import Bandwidth
from lb.see.metrics import TrafficCollector
from lb.tables import Fill
from lb.traffic import pieces


class Fills:
    """`traffic` counts flows at each scrape, and should do so before this is asked."""

    def __init__(
        self, pins: Pins, cidrs: Cidrs, bandwidth: Bandwidth, traffic: TrafficCollector
    ) -> None:
        self._pins, self._cidrs, self._bandwidth = pins, cidrs, bandwidth
        self._traffic = traffic
        self._affinity, self._tracked = (pins.open_hash(one) for one in ("affinity", "tracked"))

    def __call__(self) -> Iterator[Fill]:
        """As of now."""
        yield Fill("cidrs", len(self._cidrs.written), self._cidrs.table.capacity)
        yield from self._bandwidth.fills()
        yield self._traffic.fill
        # Opened each time: what is mapped counts as memory of the agent.
        yield of_direct(self._pins.open_array("dsr_flows"), time.monotonic_ns())
        with suppress(OSError):  # a kernel that does not read such a table by batches
            yield Fill("affinity", self._affinity.count(), self._affinity.capacity)
            yield Fill("tracked", self._tracked.count(), self._tracked.capacity)


def of_direct(table: Array, now: int) -> Fill:
    """How full `dsr_flows` is; `now` in ns of CLOCK_MONOTONIC."""
    used = sum(direct.count(piece, now) for piece in pieces(table))
    return Fill("dsr_flows", used, table.capacity * DsrRowSize.WAYS)
