"""Compares the tables with the agent's own state, and stores again only what differs.

In steps, each of one unit or a few entries: `lb.healing` has them done between the changes. What
is put back was there before, so there is no order to keep: a word that is right is not touched.
Not for finding words for it all: that is `lb.status.differences`, which reads everything at once.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator

from bpf.kept import put_back, put_back_one
from bpf.layout import BackendState, Line, NameKind, RangeKey, ServiceFlag
from bpf.layout import Service as ServiceRecord
from bpf.maps import Array
from lb.address import Address, Prefix, family, show
from lb.here import Addresses
from lb.names import packed, show_key, text_of
from lb.placing import AFFINITY, STATE, Placed, members, packed_backend
from lb.plan import Plan, Unit
from lb.ranges import RANGE
from lb.reconcile import Reconciler
from lb.rings import slots_of

_FLAGS = AFFINITY + 8
"""Where in struct service its flags lie."""
_USED = bytes(bool(flags & ServiceFlag.USED) for flags in range(256))
_LIVE = bytes(state in (BackendState.READY, BackendState.TERMINATING) for state in range(256))
_PIECE = 4096
"""Elements of an array that a step looks at for strays."""


class Mender:
    """Of the tables of one reconciler. The caller holds the lock of both at each step."""

    def __init__(self, reconciler: Reconciler, addresses: Addresses) -> None:
        self._reconciler, self._addresses = reconciler, addresses
        self._tables = reconciler.tables
        self._sums: dict[Unit, tuple[int, int, int]] = {}
        """By unit: its ring's word, a hash of who is in it, and the checksum of its slots."""

    def mend(self) -> Iterator[str]:
        """Look at all tables once; a line for each thing that was put back. Raises OSError."""
        reconciler, tables = self._reconciler, self._tables
        yield from put_back(tables.frontends, reconciler.frontends.there, _frontend)
        yield from put_back(self._addresses.table, self._addresses.written, address_name)
        yield from put_back(tables.vips, reconciler.vips.there, vip_name)
        for unit in list(reconciler.units):
            yield from self._unit(unit)
            yield ""
        names = reconciler.placer.names
        for kind, number in names.known():
            entry = names.entry(kind, number)
            yield put_back_one(tables.names, *entry, "the name of a node or zone") if entry else ""
        yield from self._strays()
        for unit in self._sums.keys() - reconciler.units.keys():
            del self._sums[unit]

    def _unit(self, unit: Unit) -> list[str]:
        """All of a unit but its frontends, which may be another's."""
        placed = self._reconciler.units.get(unit)
        if placed is None or placed.plan is None or placed.views is None:
            return []
        tables, plan = self._tables, placed.plan
        lines = []
        record = ServiceRecord(
            placed.views, placed.affinity & 0xFFFFFFFF, placed.affinity >> 32,
            ServiceFlag.USED, placed.ring,
        )  # fmt: skip
        if _store(tables.services, placed.service, record.pack()):
            lines.append(f"{unit}: the service's entry, which was altered")
        if wrong := self._backends(placed, plan):
            lines.append(f"{unit}: {wrong} of its backends, which were altered")
        for view, word in enumerate(placed.views):
            if self._list(word, _listed(placed, plan, view)):
                lines.append(f"{unit}: a list of its backends, which was altered")
        if placed.ring and self._ring(unit, placed, plan):
            lines.append(f"{unit}: its ring, which was altered")
        lines += [
            put_back_one(tables.ranges, key, RANGE, f"{unit}: {_range(key)}")
            for key in self._reconciler.ranges.there.get(unit, ())
        ]
        if unit not in self._reconciler.failing:
            key, value = packed(NameKind.SERVICE, placed.service, text_of(unit))
            lines.append(put_back_one(tables.names, key, value, f"{unit}: its name"))
        return lines

    def _backends(self, placed: Placed, plan: Plan) -> int:
        generations, wrong = self._reconciler.placer.generations, 0
        for one in plan.backends:
            spot = placed.backends[one.address, one.port]
            raw = packed_backend(one, spot, generations[spot.id], placed.service)
            wrong += _store(self._tables.backends, spot.id, raw)
        return wrong

    def _list(self, word: int, ids: list[int]) -> bool:
        """In any order: an agent before this one may have written another."""
        if not ids:
            return False
        line, count = word >> 32, -(-len(ids) // Line.SLOTS)
        there = memoryview(self._tables.slots.read(line, count)).cast("I")[: len(ids)].tolist()
        if there == ids or sorted(there) == sorted(ids):
            return False
        data = array("I", ids).tobytes()
        return _store(self._tables.slots, line, data.ljust(count * self._tables.slots.size, b"\0"))

    def _ring(self, unit: Unit, placed: Placed, plan: Plan) -> bool:
        """By a checksum: to build every ring at each round would be most of the work."""
        size, first = placed.ring & 0xFFFFFFFF, placed.ring >> 33
        inside = members(placed, plan)
        who = hash(tuple(inside))
        there = zlib.crc32(self._tables.rings.read(first, -(-size // 2)))
        if self._sums.get(unit) == (placed.ring, who, there):
            return False
        slots = slots_of(inside, size)
        self._sums[unit] = (placed.ring, who, zlib.crc32(slots))
        return _store(self._tables.rings, first, slots)

    def _strays(self) -> Iterator[str]:
        """What says of itself that it is in use, and is nobody's."""
        placer, tables, ranges = self._reconciler.placer, self._tables, self._reconciler.ranges
        known = ranges.known()
        for key, _ in tables.ranges.walk():
            yield "" if key in known else self._without_range(key)
        for first, raw in _pieces(tables.services):
            live = raw[_FLAGS :: tables.services.size].translate(_USED)
            strays = placer.services.strays(first, live)
            for number in strays:
                tables.services.store_word(number, _FLAGS, 0)
            yield from [f"service {number}, which is nobody's" for number in strays]
            yield ""
        for first, raw in _pieces(tables.backends):
            live = raw[STATE + 2 :: tables.backends.size].translate(_LIVE)
            strays = placer.backends.strays(first, live)
            for number in strays:
                tables.backends.store_word(number, STATE, placer.generations[number] << 32)
            yield from [f"backend {number}, which is nobody's" for number in strays]
            yield ""

    def _without_range(self, key: bytes) -> str:
        """It may have come while we walked."""
        if key in self._reconciler.ranges.known() or self._tables.ranges.get(key) is None:
            return ""
        self._tables.ranges.remove([key])
        return f"{_range(key)}, which is nobody's"


def _store(table: Array, index: int, data: bytes) -> bool:
    """Make elements from `index` on say this, word by word; False: they already did."""
    there = table.read(index, -(-len(data) // table.size))[: len(data)]
    if there == data:
        return False
    pairs = zip(memoryview(there).cast("Q"), memoryview(data).cast("Q"), strict=True)
    for number, (old, new) in enumerate(pairs):
        if old != new:
            table.store_word(index + 8 * number // table.size, 8 * number % table.size, new)
    return True


def _pieces(table: Array) -> Iterator[tuple[int, bytes]]:
    """All elements but the first, which stands for nobody, and the id of each piece's first."""
    for first in range(1, table.capacity, _PIECE):
        yield first, table.read(first, min(_PIECE, table.capacity - first))


def _listed(placed: Placed, plan: Plan, view: int) -> list[int]:
    """The ids in a view, each as often as it weighs."""
    return [
        placed.backends[one.address, one.port].id
        for one in plan.backends
        if one.views & 1 << view
        for _ in range(one.weight)
    ]


def _frontend(key: bytes) -> str:
    try:
        return f"frontend {show_key(key)} ({family(Address(key[:16])).label})"
    except ValueError:
        return f"frontend {key.hex()}"


def address_name(key: bytes) -> str:
    """Of an entry of `addresses`."""
    return f"node address {show(Address(key))}"


def vip_name(key: bytes) -> str:
    """Of an entry of `vips`."""
    return f"service address {show(Address(key))}"


def _range(key: bytes) -> str:
    record = RangeKey.unpack(key)
    return f"source range {Prefix((Address(record.source), record.prefix - 32))}"
