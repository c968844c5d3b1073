"""Makes the maps agree with the plans: one step at a time, in an order that never leaves a gap.

In each step: backends, lists and services first (`lb.placing`), then names and source ranges,
then the frontends that lead to them; only after that go frontends, ranges and units that
nobody wants (frontends before, where the new ones need the room). At every moment a frontend in
the maps leads to a service, and a service to backends, that are there. One unit's failure stops
no other: it is kept, with its reason, and tried again.

The agent's state is here and not in the maps; they are read once, at the start (`adopt`).
Not for deciding what a service should look like: that is `lb.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from bpf.layout import NameKey, NameKind
from lb.adopt import Strays, adopt
from lb.config import BACKEND_SLOTS, RING_SLOTS
from lb.errors import MapFull
from lb.frontends import Frontends
from lb.model import Protocol, ServiceName
from lb.names import packed, show_key, text_of
from lb.placing import Gone, Placed, Placer
from lb.plan import Plan, Unit
from lb.ranges import Ranges
from lb.restore import restore
from lb.tables import Tables
from lb.vips import Vips
from lb.writes import put_all, remove

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Pauses before a failed unit is tried again; the last one repeats."""
RINGS_SECONDS = 8.0
"""Between two tries to give rings to units that found no room for one."""
_REFUSED = (MapFull, OSError, IndexError, ValueError, ImportError)
"""What writing a unit may raise, the last two from `maglev`: it harms no other unit."""


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
    """What a step did. `writes` counts units that changed, and frontends written or removed."""

    writes: int = 0
    lost: list[Lost] = []
    appeared: list[bytes] = []
    """Keys of UDP frontends that were not there before, or were silent."""


class Reconciler:
    """Owns the tables. Not thread-safe; the caller holds a lock around every call.

    `guard` is called before the first unit that may drop in silence is written; raises OSError.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        guard: Callable[[], None],
        grace: float = 2.0,
        ring_slots: int = RING_SLOTS,
        backend_slots: int = BACKEND_SLOTS,
    ) -> None:
        self.tables = tables
        self.placer = Placer(
            tables, grace=grace, ring_slots=ring_slots, backend_slots=backend_slots
        )
        self.frontends = Frontends(tables)
        self.ranges = Ranges(tables)
        self.vips = Vips(tables)
        self.units: dict[Unit, Placed] = {}
        self.failing: dict[Unit, Failing] = {}
        # Tuples: most services have one or two units, and a set takes four times as much.
        self._of_service: dict[ServiceName, tuple[Unit, ...]] = {}
        self._doomed: dict[int, tuple[Unit, Placed]] = {}
        self._untidy_at: float | None = None
        self._ringless: set[Unit] = set()
        self._rings_at: float | None = None
        self._earlier: dict[Unit, Failing] = {}
        self._strays: Strays | None = None
        self._guard = guard

    # --- start -----------------------------------------------------------------------------

    def adopt(self) -> list[str]:
        """Take over what an agent before left in the maps; what was wrong there. Raises OSError."""
        found = restore(self.tables)
        plans = []
        for unit, placed in found.units.items():
            self._add(unit, placed)
            if placed.plan is not None:
                plans.append(placed.plan)
                self.ranges.adopt(placed.service, placed.plan)
        self.frontends.adopt(plans)
        self.vips.adopt(plans)
        self._strays = adopt(found, self.placer)
        return found.faults

    def prune(self, now: float) -> None:
        """Remove what was found at the start and belongs to nobody. Call once all is planned."""
        strays, self._strays = self._strays, None
        if strays is None:
            return
        self.frontends.remove_unclaimed()
        self.ranges.remove_unknown()
        self.vips.remove_unknown()
        strays.free(self.placer, now)
        self.placer.names.forget_unused()

    def _add(self, unit: Unit, placed: Placed) -> None:
        self.units[unit] = placed
        self._of_service[unit.service] = (*self._of_service.get(unit.service, ()), unit)

    def known_services(self) -> set[ServiceName]:
        """Services that have anything in the maps."""
        return set(self._of_service)

    @property
    def ringless(self) -> list[Unit]:
        """Units that are served without the Maglev ring that they should have."""
        placed = ((unit, self.units.get(unit)) for unit in sorted(self._ringless))
        return [unit for unit, there in placed if there and self.placer.wants_ring(there)]

    def troubles(self) -> dict[Unit, str]:
        """Why, for each unit that the maps do not hold as asked for."""
        found: dict[Unit, list[str]] = {unit: [one.error] for unit, one in self.failing.items()}
        for unit, key, holder in self.frontends.claims.losses():
            found.setdefault(unit, []).append(f"{show_key(key)} already leads to {holder}")
        return {unit: "; ".join(errors) for unit, errors in found.items()}

    # --- a step ----------------------------------------------------------------------------

    def due(self, now: float) -> set[ServiceName]:
        """Services with a unit whose next try is due."""
        return {unit.service for unit, one in self.failing.items() if one.retry_at <= now}

    def next_retry(self) -> float | None:
        """When to step again though nothing changed, with what is `due` then; None: never."""
        times = [one.retry_at for one in self.failing.values()]
        if self._untidy_at is not None:
            times.append(self._untidy_at)
        if self._rings_at is not None:
            times.append(self._rings_at)
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
            for unit in set(self._of_service.get(service, ())) - wanted:
                self._doom(unit)
        placed = [
            plan.unit for group in plans.values() for plan in group if self._try(plan, now, outcome)
        ]
        self._write_names(placed, now)
        self._write_frontends(now, outcome)
        self.vips.write()
        self.ranges.remove_stale()
        self._bury(now, outcome)
        self._tidy(now)
        if self._rings_at is not None and self._rings_at <= now:
            self._complete_rings(now)
        return outcome

    def _complete_rings(self, now: float) -> None:
        """Units that are served by hash over their lists get rings once there is room."""
        for unit in sorted(self._ringless):
            placed = self.units.get(unit)
            with suppress(*_REFUSED):
                if placed is None or self.placer.complete(placed, now):
                    self._ringless.discard(unit)
        self._rings_at = now + RINGS_SECONDS if self._ringless else None

    def _tidy(self, now: float) -> None:
        """What could not be removed is tried again by and by; until then nothing takes its id."""
        gone = self.placer.names.gone
        gone -= remove(self.tables.names, gone)
        settled = self.frontends.settled and self.ranges.settled and self.vips.settled
        left = self._doomed or gone or not settled
        self._untidy_at = now + RETRY_SECONDS[0] if left else None

    def _doom(self, unit: Unit) -> None:
        """The unit goes once no frontend leads to it."""
        placed = self.units.pop(unit)
        units = self._of_service.pop(unit.service)
        if left := tuple([one for one in units if one != unit]):
            self._of_service[unit.service] = left
        self.failing.pop(unit, None)
        self.frontends.release(unit, ())
        self.ranges.doom(unit)
        self.vips.doom(unit)
        self._doomed[placed.service] = (unit, placed)

    def _try(self, plan: Plan, now: float, outcome: Outcome) -> bool:
        """All of a unit but its name and its frontends; False: nothing to do, or it failed."""
        unit = plan.unit
        placed = self.units.get(unit)
        before = placed.plan if placed is not None else None
        if placed is not None and before is not None and unit not in self.failing:
            if before == plan:
                return False
            if msgspec.structs.replace(before, frontends=plan.frontends) == plan:
                # Another may hold some of them: then a restart finds a plan without those.
                placed.plan = plan
                self._claim(plan)
                return False
        was_silent = before is not None and before.drops()
        try:
            if plan.drops():
                self._guard()
            if placed is None:
                placed = self.placer.new(now)
                self._add(unit, placed)
            gone = self.placer.place(placed, plan, now)
            outcome.lost += [Lost(unit, one) for one in gone]
            self.ranges.put(placed.service, plan)
        except _REFUSED as error:
            self._fail(unit, str(error), now)
            return False
        if self.placer.wants_ring(placed):
            self._ringless.add(unit)
            self._rings_at = self._rings_at or now + RINGS_SECONDS
        self.failing.pop(unit, None)
        outcome.writes += before != plan
        if was_silent and not plan.drops() and unit.protocol is Protocol.UDP:
            outcome.appeared += [one.key for one in plan.frontends]
        self._claim(plan)
        return True

    def _claim(self, plan: Plan) -> None:
        self.frontends.release(plan.unit, {one.key for one in plan.frontends})
        self.frontends.claim(plan.unit, plan.frontends)
        self.vips.note(plan)

    def _write_names(self, units: Iterable[Unit], now: float) -> None:
        """Without its name a service serves, but a restart would not know it."""
        owners: dict[bytes, Unit] = {}
        entries = dict(self.placer.names.changed)
        for unit in units:
            key, value = packed(NameKind.SERVICE, self.units[unit].service, text_of(unit))
            owners[key], entries[key] = unit, value
        failed = put_all(self.tables, "names", entries)
        for key in failed.keys() & owners.keys():
            self._fail(owners[key], failed[key], now)
        for key in self.placer.names.changed.keys() - failed.keys():
            del self.placer.names.changed[key]

    def _write_frontends(self, now: float, outcome: Outcome) -> None:
        written = self.frontends.write(lambda unit: self.units[unit].service)
        for unit, error in written.failed.items():
            self._fail(unit, error, now)
        outcome.appeared += written.appeared
        outcome.writes += written.stores

    def _bury(self, now: float, outcome: Outcome) -> None:
        """Free the units to which nothing in the maps leads any more."""
        stale = self.ranges.stale_services()
        for number, (unit, placed) in list(self._doomed.items()):
            self.frontends.remove_leading_to(number)
            name = NameKey(NameKind.SERVICE, number).pack()
            if number in stale or self.frontends.lead_to(number):
                continue
            if not remove(self.tables.names, [name]):
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
