"""Next hops towards other nodes are kept resolved, so that no first packet waits for ARP or ND.

XDP sends only to a neighbour that is known; tc can hold a packet while the kernel asks. Followed
are the ways to one backend of each other node (to every address where no node is named) and the
default gateways. Not for whom this node talks to by itself: the kernel sees to that.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

from bpf import neighbour, netlink, routes
from bpf.layout import Backend, BackendFlag, BackendState
from bpf.maps import Array
from bpf.neighbour import Hop
from lb.address import Address, Family, family, show

log = logging.getLogger("tidegate.neighbours")
EVERY_SECONDS = 30.0
"""Between two looks at everything: the net under what others do to entries. Where the kernel keeps
none resolved by itself, it is told to ask as often."""
ROUTES_SECONDS = 10.0
"""The same while routes change: with BGP that may be always."""
GATHER_SECONDS = 2.0
"""Backends that come and go in between count together: a look reads their whole table."""
MOST_UNNAMED = 1024
"""Backends without a node's name that are followed: as many as a kernel keeps (gc_thresh3)."""
_PART = 4096


def representatives(parts: Iterable[bytes]) -> list[Address]:
    """One address for each other node and family; a backend without one's name stands for itself.

    `parts` are the table `backends`, in runs of whole records.
    """
    found: dict[tuple[int, Family], Address] = {}
    unnamed: dict[Address, None] = {}
    for part in parts:
        if not any(part):
            continue
        for raw, _, state, views, _, _, node, _ in Backend.LAYOUT.iter_unpack(part):
            if state == BackendState.FREE or views & BackendFlag.HERE:
                continue
            address = Address(raw)
            if node:
                found.setdefault((node, family(address)), address)
            elif len(unnamed) < MOST_UNNAMED:
                unnamed[address] = None
    return [*found.values(), *unnamed]


class Neighbours:
    """A thread of its own, in the node's network namespace."""

    def __init__(self, backends: Array) -> None:
        self._backends = backends
        self._thread = threading.Thread(target=self._run, name="neighbours", daemon=True)
        self._stirred = threading.Event()
        self._wanted: set[Hop] = set()
        self._is_kept = True
        self._put_back: deque[Hop] = deque()
        self._error = ""

    def mend(self) -> Iterator[str]:
        """A line for each that somebody took away and that is back; missing ones come back soon.

        Raises OSError, NetlinkError.
        """
        if self._lost():
            self.stir()
        while self._put_back:
            yield f"neighbour {self._put_back.popleft().address}, which was no longer kept"

    def differences(self) -> list[str]:
        """The same, and changes nothing. Raises OSError, NetlinkError."""
        return [f"neighbour {hop.address} is not kept" for hop in self._lost()]

    def _lost(self) -> list[Hop]:
        if not self._wanted or not self._is_kept:
            return []
        known = neighbour.managed()
        return sorted(self._wanted - known.ours - known.settled)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stir(self) -> None:
        """Devices or default routes changed: look soon. For any thread."""
        self._stirred.set()

    def _run(self) -> None:
        seen, last, every = 0, -EVERY_SECONDS, EVERY_SECONDS
        news = routes.News()
        followed: list[Address] = []
        while True:
            stirred = self._stirred.wait(GATHER_SECONDS)
            self._stirred.clear()
            there = functools.reduce(lambda before, part: crc32(part, before), self._parts(), 0)
            addresses = followed if there == seen else representatives(self._parts())
            now = time.monotonic()
            every = ROUTES_SECONDS if news.came() else every
            if stirred or addresses != followed or now - last > every:
                self._try(addresses)
                last, every = now, EVERY_SECONDS
            seen, followed = there, addresses

    def _parts(self) -> Iterator[bytes]:
        """The table, a little of it at a time: at no moment is all of it in memory twice."""
        table = self._backends
        for start in range(0, table.capacity, _PART):
            yield table.read(start, min(_PART, table.capacity - start))

    def _try(self, addresses: list[Address]) -> None:
        try:
            self.follow(addresses)
        except (OSError, neighbour.NetlinkError) as error:
            if str(error) != self._error:
                log.warning("could not keep neighbours resolved: %s", error)
            self._error = str(error)
        else:
            self._error = ""

    def follow(self, addresses: Iterable[Address]) -> None:
        """Make the kernel keep the ways to these, and no others. Raises OSError, NetlinkError."""
        hops = neighbour.default_hops() | neighbour.hops_to(map(show, addresses))
        links = netlink.links({hop.device for hop in hops})
        asking = {index for index, link in links.items() if link.is_ethernet}
        known = neighbour.managed()
        wanted = {hop for hop in hops - known.settled if hop.device in asking}
        neighbour.manage(wanted - known.ours)
        neighbour.let_go(known.ours - wanted)
        if self._is_kept:
            self._put_back.extend(sorted(wanted & self._wanted - known.ours))
        if wanted - known.ours:
            self._is_kept = wanted <= neighbour.managed().ours
        self._wanted = wanted

    def feature(self) -> dict[str, Any]:
        """The entry in `status`."""
        answer: dict[str, Any] = {"state": "on", "count": len(self._wanted)}
        if self._error:
            return answer | {"state": "degraded", "reason": self._error}
        if not self._is_kept:
            return answer | {"reason": f"asked for every {EVERY_SECONDS:.0f} s: Linux before 5.16"}
        return answer


def let_all_go() -> int:
    """Leave all of ours to the kernel; how many there were. Raises OSError, NetlinkError."""
    ours = neighbour.managed().ours
    neighbour.let_go(ours)
    return len(ours)
