"""Makes the maps agree with the plans: one step at a time, in an order that never leaves a gap.

In each step: backends, lists and services first (`lb.placing`), then names and source ranges,
then the frontends that lead to them; only after that go frontends, ranges and units that
nobody wants. At every moment a frontend in the maps leads to a service, and a service to
backends, that are there. One unit's failure stops no other: it is kept, with its reason, and
tried again.

The agent's state is here and not in the maps; they are read once, at the start (`adopt`).
Not for deciding what a service should look like: that is `lb.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from bpf.layout import Frontend as FrontendRecord
from bpf.layout import FrontendKey, NameKey, NameKind, Range, RangeKey
from bpf.maps import Hash
from lb.claims import Claims
from lb.errors import MapFull
from lb.model import Protocol, ServiceName
from lb.names import packed, text_of
from lb.placing import Gone, Placed, Placer
from lb.plan import Frontend, Plan, Unit
from lb.restore import Found, restore
from lb.tables import FLAGS, Tables

_RANGE = Range().pack()
RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Pauses before a failed unit is tried again; the last one repeats."""


class Failing(msgspec.Struct, frozen=True):
    """A unit that the maps do not hold as planned. Times are the caller's clock, in seconds."""

    error: str
    since: float
    attempts: int
    retry_at: float


class Lost(NamedTuple):
    """A backend that new connections no longer reach."""

    unit: Unit
    backend: Gone


class Outcome(msgspec.Struct):
    """What a step did. `writes` counts units, frontends and ranges written or removed."""

    writes: int = 0
    lost: list[Lost] = []
    appeared: list[bytes] = []
    """Keys of UDP frontends that were not there before, or were silent."""


class Reconciler:
    """Owns the tables. Not thread-safe; the caller holds a lock around every call.

    `guard` is called before the first unit that may drop in silence is written; raises OSError.
    """

    def __init__(self, tables: Tables, *, guard: Callable[[], None], grace: float = 2.0) -> None:
        self.tables = tables
        self.placer = Placer(tables, grace=grace)
        self.claims = Claims()
        self.units: dict[Unit, Placed] = {}
        self.failing: dict[Unit, Failing] = {}
        self.frontends: dict[bytes, bytes] = {}
        self._of_service: dict[ServiceName, set[Unit]] = {}
        self._ranges: dict[Unit, set[bytes]] = {}
        self._leading: dict[int, int] = {}
        self._doomed: dict[int, tuple[Unit, Placed]] = {}
        self._unsettled: set[bytes] = set()
        """Keys of frontends whose entry is yet to be looked at: touched, or not removed."""
        self._stale_ranges: set[bytes] = set()
        self._untidy_at: float | None = None
        self._earlier: dict[Unit, Failing] = {}
        self._strays: Found | None = None
        self._guard = guard

    # --- start -----------------------------------------------------------------------------

    def adopt(self) -> list[str]:
        """Take over what an agent before left in the maps; what was wrong there. Raises OSError."""
        found = restore(self.tables)
        self.placer.generations = found.generations
        for (kind, number), text in found.names.items():
            if kind is not NameKind.SERVICE:
                self.placer.names.restore(kind, number, text)
        for unit, placed in found.units.items():
            self._adopt_unit(unit, placed, found)
        for number in found.stray_backends:
            self.placer.backends.restore(number)
        for number in found.stray_services:
            self.placer.services.restore(number)
            found.extents[number] = tuple([(o, 1) for o in self._adopt_lines(number, found)])
        self._note_written(dict(self.tables.frontends.items()))
        # Of what was read back, only that which may have to go is looked at again.
        extents = {number: found.extents[number] for number in found.stray_services}
        self._strays = msgspec.structs.replace(found, units={}, extents=extents, names={})
        return found.faults

    def _adopt_unit(self, unit: Unit, placed: Placed, found: Found) -> None:
        self.placer.services.restore(placed.service)
        for spot in placed.backends.values():
            self.placer.backends.restore(spot.id)
            spot.node = self._use(NameKind.NODE, spot.node, found)
            spot.zone = self._use(NameKind.ZONE, spot.zone, found)
        placed.extents = self._adopt_lines(placed.service, found)
        if placed.plan is not None:
            for frontend in placed.plan.frontends:
                self.claims.claim(unit, frontend)
            if placed.plan.ranges:
                self._ranges[unit] = _range_keys(placed.service, placed.plan)
        if unit in found.torn or len(placed.extents) != len(found.extents[placed.service]):
            placed.plan = None
        self.units[unit] = placed
        self._of_service.setdefault(unit.service, set()).add(unit)

    def _adopt_lines(self, service: int, found: Found) -> tuple[int, ...]:
        """The offsets of the extents in use, without those that overlap another's."""
        offsets = []
        for offset, lines in found.extents.get(service, ()):
            try:
                self.placer.lines.restore(offset, lines)
                offsets.append(offset)
            except ValueError as error:
                found.faults.append(f"service {service}: {error}")
        return tuple(offsets)

    def _use(self, kind: NameKind, number: int, found: Found) -> int:
        return self.placer.names.use(kind, found.names.get((kind, number), ""))

    def known_services(self) -> set[ServiceName]:
        """Services that have anything in the maps."""
        return set(self._of_service)

    # --- a step ----------------------------------------------------------------------------

    def due(self, now: float) -> set[ServiceName]:
        """Services with a unit whose next try is due."""
        return {unit.service for unit, one in self.failing.items() if one.retry_at <= now}

    def next_retry(self) -> float | None:
        """When to step again though nothing changed, with what is `due` then; None: never."""
        times = [one.retry_at for one in self.failing.values()]
        if self._untidy_at is not None:
            times.append(self._untidy_at)
        return min(times, default=None)

    def step(self, plans: Mapping[ServiceName, Collection[Plan]], now: float) -> Outcome:
        """Make the maps hold these plans; a service without plans goes. `now` in seconds."""
        outcome = Outcome(0, [], [])
        wanted = {plan.unit for group in plans.values() for plan in group}
        self._earlier = dict(self.failing)
        for unit in self._earlier:
            if unit.service in plans and unit not in wanted:
                del self.failing[unit]
        for service in plans:
            for unit in self._of_service.get(service, set()) - wanted:
                self._doom(unit)
        placed = [
            plan.unit for group in plans.values() for plan in group if self._try(plan, now, outcome)
        ]
        self._write_names(placed, now)
        self._write_frontends(now, outcome)
        self._stale_ranges -= self._remove(self.tables.ranges, self._stale_ranges)
        self._bury(now, outcome)
        self._tidy(now)
        return outcome

    def _tidy(self, now: float) -> None:
        """What could not be removed is tried again by and by; until then nothing takes its id."""
        gone = self.placer.names.gone
        gone -= self._remove(self.tables.names, gone)
        left = self._doomed or self._unsettled or self._stale_ranges or gone
        self._untidy_at = now + RETRY_SECONDS[0] if left else None

    def _doom(self, unit: Unit) -> None:
        """The unit goes once no frontend leads to it."""
        placed = self.units.pop(unit)
        units = self._of_service[unit.service]
        units.discard(unit)
        if not units:
            del self._of_service[unit.service]
        self.failing.pop(unit, None)
        self._release(unit, ())
        self._stale_ranges |= self._ranges.pop(unit, set())
        self._doomed[placed.service] = (unit, placed)

    def _try(self, plan: Plan, now: float, outcome: Outcome) -> bool:
        """All of a unit but its name and its frontends; False: nothing to do, or it failed."""
        unit = plan.unit
        placed = self.units.get(unit)
        if placed is not None and placed.plan == plan and unit not in self.failing:
            return False
        was_silent = placed is not None and placed.plan is not None and placed.plan.drops()
        try:
            if plan.drops():
                self._guard()
            if placed is None:
                placed = self._new(unit, now)
            gone = self.placer.place(placed, plan, now)
            outcome.lost += [Lost(unit, one) for one in gone]
            self._put_ranges(unit, placed, plan)
        except (MapFull, OSError, IndexError) as error:
            self._fail(unit, str(error), now)
            return False
        self.failing.pop(unit, None)
        outcome.writes += 1
        if was_silent and not plan.drops() and unit.protocol is Protocol.UDP:
            outcome.appeared += [one.key for one in plan.frontends]
        self._release(unit, {one.key for one in plan.frontends})
        for frontend in plan.frontends:
            self.claims.claim(unit, frontend)
            self._unsettled.add(frontend.key)
        return True

    def _new(self, unit: Unit, now: float) -> Placed:
        placed = self.placer.new(now)
        self.units[unit] = placed
        self._of_service.setdefault(unit.service, set()).add(unit)
        return placed

    def _release(self, unit: Unit, kept: Collection[bytes]) -> None:
        """Give up the claims on all frontends but `kept`."""
        given_up = self.claims.of(unit) - set(kept)
        self.claims.release(unit, given_up)
        self._unsettled |= given_up

    def _put_ranges(self, unit: Unit, placed: Placed, plan: Plan) -> None:
        """One by one, so that it is known which are there when one fails."""
        wanted = _range_keys(placed.service, plan)
        there = self._ranges.setdefault(unit, set())
        for key in wanted - there:
            self._put("ranges", {key: _RANGE})
            there.add(key)
        self._stale_ranges |= there - wanted
        self._stale_ranges -= wanted
        there &= wanted
        if not there:
            del self._ranges[unit]

    def _put(self, name: str, entries: Mapping[bytes, bytes]) -> None:
        """Raises MapFull where the kernel says so, else OSError."""
        table = getattr(self.tables, name)
        try:
            table.put(entries)
        except OSError as error:
            if error.errno in (7, 12, 28):  # E2BIG, ENOMEM, ENOSPC: hash, no preallocation, LPM
                raise _full(name, table.capacity) from error
            raise

    def _write_names(self, units: Iterable[Unit], now: float) -> None:
        """Without its name a service serves, but a restart would not know it."""
        owners: dict[bytes, Unit] = {}
        entries = dict(self.placer.names.changed)
        for unit in units:
            key, value = packed(NameKind.SERVICE, self.units[unit].service, text_of(unit))
            owners[key], entries[key] = unit, value
        failed = self._put_all("names", entries)
        for key in failed.keys() & owners.keys():
            self._fail(owners[key], failed[key], now)
        for key in self.placer.names.changed.keys() - failed.keys():
            del self.placer.names.changed[key]

    def _write_frontends(self, now: float, outcome: Outcome) -> None:
        wanted: dict[bytes, bytes] = {}
        gone: list[bytes] = []
        for key in self._unsettled:
            claim = self.claims.held.get(key)
            if claim is None:
                gone.append(key)
            else:
                value = self._value(claim.unit, claim.frontend)
                if self.frontends.get(key) != value:
                    wanted[key] = value
        gone = [key for key in gone if key in self.frontends]
        failed = self._put_all("frontends", wanted)
        for key, error in failed.items():
            self._fail(self.claims.held[key].unit, error, now)
        written = {key: value for key, value in wanted.items() if key not in failed}
        outcome.appeared += [key for key in written if key not in self.frontends and _is_udp(key)]
        self._note_written(written)
        removed = self._remove(self.tables.frontends, gone)
        self._note_removed(removed)
        self._unsettled = set(gone) - removed
        outcome.writes += len(written) + len(removed)

    def _note_written(self, entries: Mapping[bytes, bytes]) -> None:
        self._note_removed([key for key in entries if key in self.frontends])
        self.frontends |= entries
        for value in entries.values():
            self._leading[_service_of(value)] = self._leading.get(_service_of(value), 0) + 1

    def _note_removed(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            service = _service_of(self.frontends.pop(key))
            self._leading[service] -= 1
            if not self._leading[service]:
                del self._leading[service]

    def _value(self, unit: Unit, frontend: Frontend) -> bytes:
        service = self.units[unit].service
        return FrontendRecord(service, frontend.type, frontend.flags).pack()

    def _put_all(self, name: str, entries: Mapping[bytes, bytes]) -> dict[bytes, str]:
        """All at once, or else one by one; why, for each that could not be written."""
        if not entries:
            return {}
        with suppress(MapFull, OSError):
            self._put(name, entries)
            return {}
        failed = {}
        for key, value in entries.items():
            try:
                self._put(name, {key: value})
            except (MapFull, OSError) as error:
                failed[key] = str(error)
        return failed

    @staticmethod
    def _remove(table: Hash, keys: Iterable[bytes]) -> set[bytes]:
        """One by one, so that one failure keeps no other; those that went."""
        removed = set()
        for key in keys:
            with suppress(OSError):
                table.remove([key])
                removed.add(key)
        return removed

    def _bury(self, now: float, outcome: Outcome) -> None:
        """Free the units to which nothing in the maps leads any more."""
        stale = {RangeKey.unpack(key).service for key in self._stale_ranges}
        for number, (unit, placed) in list(self._doomed.items()):
            if number in self._leading:  # a removal failed, or a write of who takes over
                left = [k for k, value in self.frontends.items() if _service_of(value) == number]
                self._note_removed(self._remove(self.tables.frontends, left))
            name = NameKey(NameKind.SERVICE, number).pack()
            if number in self._leading or number in stale:
                continue
            if not self._remove(self.tables.names, [name]):
                continue
            try:
                gone = self.placer.remove(placed, now)
            except OSError:
                continue
            del self._doomed[number]
            outcome.writes += 1
            outcome.lost += [Lost(unit, one) for one in gone]

    def _fail(self, unit: Unit, error: str, now: float) -> None:
        before = self._earlier.get(unit)
        attempts = before.attempts + 1 if before else 1
        pause = RETRY_SECONDS[min(attempts, len(RETRY_SECONDS)) - 1]
        since = before.since if before else now
        self.failing[unit] = Failing(error, since, attempts, now + pause)

    # --- after the first full state --------------------------------------------------------

    def prune(self, now: float) -> None:
        """Remove what was found at the start and belongs to nobody. Call once all is planned."""
        found, self._strays = self._strays, None
        if found is None:
            return
        orphans = [key for key in self.frontends if key not in self.claims.held]
        self._note_removed(self._remove(self.tables.frontends, orphans))
        known = set().union(*self._ranges.values())
        there = [key for key, _ in self.tables.ranges.items()]
        self._remove(self.tables.ranges, [key for key in there if key not in known])
        for number in found.stray_services:
            lines = [offset for offset, _ in found.extents[number]]
            self.placer.free_stray_service(number, lines, now)
        for number in found.stray_backends:
            self.placer.free_stray_backend(number, now)
        self.placer.names.forget_unused()


def _service_of(value: bytes) -> int:
    """The service id in a packed frontend."""
    return int.from_bytes(value[:4], "little")


def _range_keys(service: int, plan: Plan) -> set[bytes]:
    return {RangeKey(prefix[1] + 32, service, prefix[0]).pack() for prefix in plan.ranges}


def _is_udp(key: bytes) -> bool:
    return FrontendKey.unpack(key).protocol == Protocol.UDP


def _full(name: str, capacity: int) -> MapFull:
    return MapFull(f"map full: {name} holds {capacity} entries; raise {FLAGS.get(name, '--max')}")
