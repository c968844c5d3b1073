"""Gives plans their ids and lines, and writes all of a unit but its frontends.

Order makes a switch atomic: what is new is written where nothing points yet, then each view of
the service flips by one 64-bit store, then what is old is released, to rest before it is used
again. A unit whose writing was interrupted is `torn` and is written whole the next time.

Frontends, names and source ranges live in hash maps and are the reconciler's, which writes
them in batches.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import msgspec

from bpf.layout import Backend as BackendRecord
from bpf.layout import BackendState, Empty, Line, LineOfSlots, Load, NameKind, ServiceFlag, View
from bpf.layout import Service as ServiceRecord
from lb.address import Address
from lb.config import BACKEND_SLOTS, RING_SLOTS
from lb.errors import MapFull
from lb.extents import Extents
from lb.ids import Ids
from lb.names import Names
from lb.plan import VIEWS, Backend, Plan
from lb.rings import Member, Rings
from lb.tables import Tables
from lb.writes import full

AFFINITY = 24
"""Where in struct service a word holds affinity seconds (low half) and epoch (high half)."""
STATE = 16
"""Where in struct backend a word holds port, state, views and generation."""
OWNER = 24
"""Where in struct backend a word holds service, node and zone."""
EMPTY: tuple[int, int, int] = (Empty.REFUSE, Empty.REFUSE, Empty.REFUSE)
"""The views of a service id that is free."""

_NOTHING = bytes(Load.SIZE)

Where = tuple[Address, int]
"""Address and port of a backend within its unit."""


class Spot(msgspec.Struct, gc=False):
    """A backend's id, and the ids of its node's and zone's names."""

    id: int
    node: int = 0
    zone: int = 0


class Placed(msgspec.Struct, gc=False):
    """Where a unit stands. `plan` is what the maps hold; None: unknown, or torn."""

    service: int
    plan: Plan | None = None
    backends: dict[Where, Spot] = {}
    extents: tuple[int, ...] = ()
    """Offsets; but for a torn unit there is at most one."""
    views: tuple[int, int, int] | None = None
    """The words in force; None: the service was never written."""
    affinity: int = 0
    """The word of affinity seconds and epoch in force."""
    ring: int = 0
    """The word of the Maglev ring in force; 0: none."""


class Gone(msgspec.Struct, frozen=True, gc=False):
    """A backend that a unit lost."""

    address: Address
    port: int
    id: int


class Placer:
    """Allocates and writes. Not thread-safe: one reconciler owns it. `grace` is in seconds."""

    def __init__(
        self,
        tables: Tables,
        *,
        grace: float = 2.0,
        ring_slots: int = RING_SLOTS,
        backend_slots: int = BACKEND_SLOTS,
    ) -> None:
        self.tables = tables
        self.names = Names()
        self.services = Ids(tables.services.capacity, grace=grace)
        self.backends = Ids(tables.backends.capacity, grace=grace)
        self.lines = Extents(tables.slots.capacity, grace=grace)
        self.rings = Rings(tables, grace=grace, limit=ring_slots, each=backend_slots)
        self.generations = array("I", bytes(4 * tables.backends.capacity))
        self._first = 0

    def begin_generations(self, first: int) -> None:
        """Count those of ids that were never in use from `first` on."""
        self._first = first
        self.generations = array("I", [known or first for known in self.generations])

    def new(self, now: float) -> Placed:
        """A place for a new unit. Raises MapFull."""
        service = self.services.take(now)
        if service is None:
            raise full("services", self.services.capacity)
        before = ServiceRecord.unpack(self.tables.services.read(service)[: ServiceRecord.SIZE])
        if before.affinity_epoch:  # the id had an owner
            self.tables.counters.clear(service)
        # Another epoch than the id's last owner had: its clients are not remembered.
        epoch = (before.affinity_epoch + 1) & 0xFFFFFFFF
        return Placed(service, affinity=epoch << 32)

    def place(self, placed: Placed, plan: Plan, now: float) -> list[Gone]:
        """Make the maps hold `plan`; the backends that went. Raises MapFull with nothing changed.

        Any other error leaves the unit torn: view by view served as before or as planned.
        """
        old, placed.plan = placed.plan, None
        try:
            taken = self._take_backends(placed, plan, now)
            try:
                views = self._lists(placed, old, plan, now)
            except MapFull:
                self._give_back(placed, taken)
                raise
        except MapFull:
            placed.plan = old
            raise
        self._write_backends(placed, old, plan, taken)
        self._commit(placed, plan, views)
        self._switch_ring(placed, old, plan, now)
        gone = self._retire(placed, plan, now)
        placed.plan = plan
        return gone

    def remove(self, placed: Placed, now: float) -> list[Gone]:
        """Free all of a unit that no frontend leads to any more; its backends."""
        if placed.ring:
            placed.ring = self.rings.switch(placed.service, placed.ring, (), now)
        record = ServiceRecord(EMPTY, 0, placed.affinity >> 32, 0, 0)
        self.tables.services.write(placed.service, record.pack())
        gone = [self._free(placed, where, now) for where in list(placed.backends)]
        for offset in placed.extents:
            self.lines.release(offset, now)
        placed.extents = ()
        self.services.release(placed.service, now)
        return gone

    def _take_backends(self, placed: Placed, plan: Plan, now: float) -> list[Where]:
        """Ids for the backends that have none yet; those backends."""
        taken: list[Where] = []
        there, generations = placed.backends, self.generations
        for backend in plan.backends:
            where = (backend.address, backend.port)
            if where in there:
                continue
            number = self.backends.take(now)
            if number is None:
                self._give_back(placed, taken)
                raise full("backends", self.backends.capacity)
            generations[number] = (generations[number] + 1) & 0xFFFFFFFF
            there[where] = Spot(number)
            taken.append(where)
        return taken

    def _give_back(self, placed: Placed, taken: list[Where]) -> None:
        """At once, so that a unit that does not fit keeps no room from one that does."""
        for where in taken:
            self.backends.put_back(placed.backends.pop(where).id)

    def _lists(
        self, placed: Placed, old: Plan | None, plan: Plan, now: float
    ) -> tuple[int, int, int]:
        """The words of the views to come; their lists are written where nothing points yet."""
        if old is not None and placed.views is not None and _listed(old) == _listed(plan):
            words = [
                word if word & 0xFFFFFFFF else plan.empty[view] << 32
                for view, word in enumerate(placed.views)
            ]
            return words[0], words[1], words[2]
        ids = placed.backends
        listed = [
            (ids[one.address, one.port].id, one.views)
            for one in plan.backends
            for _ in range(one.weight)
        ]
        lists = [tuple([one for one, views in listed if views >> view & 1]) for view in range(3)]
        different = [one for one in dict.fromkeys(lists) if one]
        starts = dict.fromkeys(different, 0)
        if different:
            offset = self.lines.take(sum(map(_lines_for, different)), now)
            if offset is None:
                raise full("slots", self.lines.capacity)
            placed.extents += (offset,)
            for one in different:
                self.tables.slots.write(offset, _packed(one))
                starts[one] = offset
                offset += _lines_for(one)
        words = [
            starts[one] << 32 | len(one) if one else plan.empty[view] << 32
            for view, one in enumerate(lists)
        ]
        return words[0], words[1], words[2]

    def _write_backends(
        self, placed: Placed, old: Plan | None, plan: Plan, taken: list[Where]
    ) -> None:
        """New ones whole; kept ones, whose address never changes, by aligned words."""
        fresh = set(taken)
        before = set(old.backends) if old is not None else set()
        whole: dict[int, bytes] = {}
        for backend in plan.backends:
            where = (backend.address, backend.port)
            if where in fresh or old is None:
                raw = self._record(placed, backend)
                number = placed.backends[where].id
                if where in fresh and self.generations[number] != self._first + 1:
                    self.tables.loads.write(number, _NOTHING)
                whole[number] = raw
            elif backend not in before:
                raw = self._record(placed, backend)
                for offset in (STATE, OWNER):
                    word = int.from_bytes(raw[offset : offset + 8], "little")
                    self.tables.backends.store_word(placed.backends[where].id, offset, word)
        for first, records in _runs(whole):
            self.tables.backends.write(first, records)

    def _record(self, placed: Placed, backend: Backend) -> bytes:
        spot = placed.backends[backend.address, backend.port]
        old_node, old_zone = spot.node, spot.zone
        spot.node = self.names.use(NameKind.NODE, backend.node)
        spot.zone = self.names.use(NameKind.ZONE, backend.zone)
        if old_node or old_zone:
            self.names.drop(NameKind.NODE, old_node)
            self.names.drop(NameKind.ZONE, old_zone)
        return packed_backend(backend, spot, self.generations[spot.id], placed.service)

    def _commit(self, placed: Placed, plan: Plan, views: tuple[int, int, int]) -> None:
        affinity = _affinity(placed.affinity, plan.affinity_seconds)
        if placed.views is None:
            record = ServiceRecord(
                views, plan.affinity_seconds, affinity >> 32, ServiceFlag.USED, 0
            )
            self.tables.services.write(placed.service, record.pack())
        else:
            for view, word in enumerate(views):
                self.tables.services.store_word(placed.service, 8 * view, word)
            self.tables.services.store_word(placed.service, AFFINITY, affinity)
        placed.views, placed.affinity = views, affinity

    def _switch_ring(self, placed: Placed, old: Plan | None, plan: Plan, now: float) -> None:
        """A ring of the view OUTSIDE, unless the one in force is of the same backends."""
        inside = _outside(plan)
        if old is not None and _outside(old) == inside and bool(placed.ring) == bool(inside):
            return
        if inside or placed.ring:
            numbered = members(placed, plan)
            placed.ring = self.rings.switch(placed.service, placed.ring, numbered, now)

    def wants_ring(self, placed: Placed) -> bool:
        """Is the unit served without the ring that it should have, for want of room?"""
        if placed.ring or placed.plan is None:
            return False
        count = len(_outside(placed.plan))
        return 0 < count <= self.rings.limit

    def complete(self, placed: Placed, now: float) -> bool:
        """Try again to give a unit the ring that it wants. Raises what a store raises."""
        if self.wants_ring(placed) and placed.plan is not None:
            self._switch_ring(placed, None, placed.plan, now)
        return not self.wants_ring(placed)

    def _retire(self, placed: Placed, plan: Plan, now: float) -> list[Gone]:
        """Free what the views in force no longer need."""
        gone: list[Gone] = []
        if len(placed.backends) > len(plan.backends):
            wanted = {(backend.address, backend.port) for backend in plan.backends}
            left = [where for where in placed.backends if where not in wanted]
            gone = [self._free(placed, where, now) for where in left]
        in_force = min((word >> 32 for word in placed.views or () if word & 0xFFFFFFFF), default=0)
        for offset in placed.extents:
            if offset != in_force:
                self.lines.release(offset, now)
        placed.extents = tuple([offset for offset in placed.extents if offset == in_force])
        return gone

    def _free(self, placed: Placed, where: Where, now: float) -> Gone:
        """The address stays in the record: a program that chose it just now still reads it."""
        spot = placed.backends[where]
        word = self.generations[spot.id] << 32 | BackendState.FREE << 16
        word |= int.from_bytes(where[1].to_bytes(2), "little")
        self.tables.backends.store_word(spot.id, STATE, word)
        del placed.backends[where]
        self.names.drop(NameKind.NODE, spot.node)
        self.names.drop(NameKind.ZONE, spot.zone)
        self.backends.release(spot.id, now)
        return Gone(*where, spot.id)


def packed_backend(backend: Backend, spot: Spot, generation: int, service: int) -> bytes:
    """A backend's record."""
    return BackendRecord.LAYOUT.pack(
        backend.address, backend.port.to_bytes(2), backend.state, backend.views,
        generation, service, spot.node, spot.zone,
    )  # fmt: skip


def members(placed: Placed, plan: Plan) -> list[Member]:
    """Who is in the unit's Maglev ring."""
    return [
        Member(address, port, weight, placed.backends[address, port].id)
        for address, port, weight in _outside(plan)
    ]


def _runs(records: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Records by id, those of ids in a row as one: at a start a unit's lie side by side."""
    numbers = sorted(records)
    first = 0
    for i, number in enumerate(numbers, start=1):
        if i == len(numbers) or numbers[i] != number + 1:
            yield numbers[first], b"".join([records[one] for one in numbers[first:i]])
            first = i


def _listed(plan: Plan) -> list[tuple[Address, int, int, int]]:
    return [(one.address, one.port, one.views & VIEWS, one.weight) for one in plan.backends]


def _outside(plan: Plan) -> list[tuple[Address, int, int]]:
    """Who is in the unit's ring, with weights."""
    if not plan.ring:
        return []
    bit = 1 << View.OUTSIDE
    return [(one.address, one.port, one.weight) for one in plan.backends if one.views & bit]


def _lines_for(ids: tuple[int, ...]) -> int:
    return -(-len(ids) // Line.SLOTS)


def _packed(ids: tuple[int, ...]) -> bytes:
    return array("I", ids).tobytes().ljust(_lines_for(ids) * LineOfSlots.SIZE, b"\0")


def _affinity(word: int, seconds: int) -> int:
    """Seconds low, epoch high; turning affinity on starts with an empty memory."""
    epoch, before = word >> 32, word & 0xFFFFFFFF
    if seconds and not before:
        epoch = (epoch + 1) & 0xFFFFFFFF
    return epoch << 32 | seconds
