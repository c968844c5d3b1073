"""Connections from outside that kube-proxy translated before we came: the kernel goes on with them.

To us they would be in their midst, and Maglev may choose another backend. So their ends are written
down before the first program comes to a device, and the programs leave their packets to
connection tracking. Not for connections of pods and nodes, which no program of ours meets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bpf.layout import Ends
from bpf.layout import Tracked as Entry
from bpf.maps import Hash
from lb.address import parse

if TYPE_CHECKING:
    from bpf.conntrack import Server

log = logging.getLogger("tidegate.tracked")

LOOK_SECONDS = 60.0
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


class Tracked:
    """Those connections. `table` outlives the agent; `is_first`: none was before us."""

    def __init__(self, table: Hash, *, is_first: bool) -> None:
        self._table, self._is_first = table, is_first

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Write down what is open before programs come to devices, and what began meanwhile."""
        if self._is_first:
            self._learn()
        yield
        if self._is_first:
            self._learn()

    def _learn(self) -> None:
        there = self._open() or set()
        fits = dict.fromkeys(sorted(there)[: self._table.capacity], Entry(0).pack())
        try:
            self._table.put(fits)
        except OSError as error:
            log.warning("could not write down connections that are open: %s", error)
        if len(there) > len(fits):
            log.warning(
                "%d open connections from outside, of which %d fit: the rest may be cut",
                len(there), len(fits),
            )  # fmt: skip

    def follow(self, stop: threading.Event) -> None:
        """In a thread: take out what is over, until nothing is left."""
        threading.Thread(target=self._run, args=(stop,), name="tracked", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        while self.forget() and not stop.wait(LOOK_SECONDS):
            pass

    def forget(self) -> int:
        """Take out what is over; how many are left."""
        there = {key for key, _ in self._table.items()}
        if not there:
            return 0
        still = self._open()
        over = set() if still is None else there - still
        self._table.remove(over)
        return len(there) - len(over)

    def _open(self) -> set[bytes] | None:
        """None: it could not be read."""
        # To ask loads the kernel's module.
        if not _COUNT.exists() or _COUNT.read_text().strip() == "0":
            return set()
        from bpf import conntrack  # noqa: PLC0415 - both load much of netlink
        from lb import ipvs  # noqa: PLC0415

        try:
            found = {one.pack() for one in conntrack.ends()}
            # Connection tracking does not say of these that they are translated.
            return found | {_ends(*one).pack() for one in ipvs.open_connections()}
        except (OSError, conntrack.NetlinkError) as error:
            log.warning("could not read which connections are open: %s", error)
            return None


def _ends(client: Server, frontend: Server) -> Ends:
    return Ends(parse(client.address), parse(frontend.address), client.port, frontend.port)
