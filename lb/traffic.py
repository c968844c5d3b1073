"""What services and backends carried: sums over the three places where the data path counts.

A flow counts its own packets while it is in `flows`, so that nothing is counted twice a packet;
`loads` and `counters` have those that left, and what sockets opened. Packets of sockets are
counted nowhere, since nothing of ours sees them. Not for names: ids only.
"""

from __future__ import annotations

from collections import Counter as Bag
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from bpf.layout import Counter, Flow, Load, RowSize
from bpf.layout import Row as FlowRow
from bpf.maps import Array, PerCpu
from lb.flows import FLOWS, PIECE, is_unused, timeout

_SECOND = 10**9
_AT = {field.name: field.offset for field in Flow.FIELDS}
_OWNER = Struct("<III")
"""service, id, generation."""
_STATE = Struct("<BB")
_COUNTS = Struct("<QQQ")
"""used, packets, octets."""


class Carried(NamedTuple):
    """Since the tables were made. `octets` are of IP packets, both ways, of outside traffic."""

    connections: int = 0
    """Begun: by sockets, and from outside."""
    open: int = 0
    """Of them, those that are not over."""
    packets: int = 0
    octets: int = 0
    refusals: int = 0
    """Socket calls refused and packets dropped; known of services only."""


class Present(NamedTuple):
    """What the flows in the table count, by service id and by (backend id, generation)."""

    services: Bag[tuple[int, str]]
    backends: Bag[tuple[int, int, str]]


def pieces(table: Array) -> Iterator[bytes]:
    """All rows of the table `flows`, some at a time."""
    for first in range(0, table.capacity, PIECE):
        yield table.read(first, min(PIECE, table.capacity - first))


def present(rows: Iterable[bytes], now: int) -> Present:
    """Adds up whole rows of the table `flows`. `now`: ns of CLOCK_MONOTONIC."""
    services: Bag[tuple[int, str]] = Bag()
    backends: Bag[tuple[int, int, str]] = Bag()
    for piece in rows:
        for start in range(0, len(piece), FlowRow.SIZE):
            if is_unused(piece, start):
                continue
            for way in range(RowSize.WAYS):
                at = start + FLOWS + way * Flow.SIZE
                used, packets, octets = _COUNTS.unpack_from(piece, at + _AT["used"])
                if not used:
                    continue
                service, number, generation = _OWNER.unpack_from(piece, at + _AT["service"])
                protocol, state = _STATE.unpack_from(piece, at + _AT["protocol"])
                alive = state and now - used <= timeout(protocol, state) * _SECOND
                for word, count in (("packets", packets), ("octets", octets), ("open", alive)):
                    services[service, word] += count
                    backends[number, generation, word] += count
    return Present(services, backends)


def of_service(counters: PerCpu, service: int, there: Present) -> Carried:
    """What a service carried; `open` counts flows from outside only."""
    counted = Counter(*counters.totals(service))
    flows = there.services
    return Carried(
        counted.opened + counted.flows,
        flows[service, "open"],
        counted.packets + flows[service, "packets"],
        counted.octets + flows[service, "octets"],
        counted.refusals,
    )


def of_backend(load: Load, number: int, generation: int, there: Present) -> Carried:
    """What a backend carried."""
    flows = there.backends
    return Carried(
        load.opened + load.flows,
        max(0, load.opened - load.closed) + flows[number, generation, "open"],
        load.packets + flows[number, generation, "packets"],
        load.octets + flows[number, generation, "octets"],
    )
