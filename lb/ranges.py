"""The table of source ranges: by unit, which are there; and which are yet to go."""

from __future__ import annotations

from bpf.layout import Range, RangeKey
from lb.plan import Plan, Unit
from lb.tables import Tables
from lb.writes import put, remove

RANGE = Range().pack()
"""The value of every entry."""


class Ranges:
    """Owns the table. Not thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self.there: dict[Unit, set[bytes]] = {}
        """Packed keys of what the table holds for each unit; units without any are not here."""
        self._tables = tables
        self._stale: set[bytes] = set()

    @property
    def settled(self) -> bool:
        """Does the table hold nothing that should be gone?"""
        return not self._stale

    @property
    def used(self) -> int:
        """Entries of the table."""
        return len(self._stale) + sum(map(len, self.there.values()))

    def adopt(self, service: int, plan: Plan) -> None:
        """The table holds what this plan says."""
        if plan.ranges:
            self.there[plan.unit] = _keys(service, plan)

    def put(self, service: int, plan: Plan) -> None:
        """Write what the plan says; the rest is stale. Raises MapFull, OSError.

        One by one, so that it is known which are there when one fails.
        """
        wanted = _keys(service, plan)
        there = self.there.setdefault(plan.unit, set())
        for key in wanted - there:
            put(self._tables, "ranges", {key: RANGE})
            there.add(key)
        self._stale |= there - wanted
        self._stale -= wanted
        there &= wanted
        if not there:
            del self.there[plan.unit]

    def doom(self, unit: Unit) -> None:
        """All of a unit's are stale."""
        self._stale |= self.there.pop(unit, set())

    def remove_stale(self) -> None:
        """Call once no frontend asks for them any more; what fails stays stale."""
        self._stale -= remove(self._tables.ranges, self._stale)

    def stale_services(self) -> set[int]:
        """The ids that stale ranges are kept under."""
        return {RangeKey.unpack(key).service for key in self._stale}

    def known(self) -> set[bytes]:
        """Packed keys of all that the table may hold."""
        return self._stale.union(*self.there.values())

    def remove_unknown(self) -> None:
        """Remove what belongs to no unit. Raises OSError when the table cannot be read."""
        known = set().union(*self.there.values())
        there = [key for key, _ in self._tables.ranges.items()]
        remove(self._tables.ranges, [key for key in there if key not in known])


def _keys(service: int, plan: Plan) -> set[bytes]:
    return {RangeKey(prefix[1] + 32, service, prefix[0]).pack() for prefix in plan.ranges}
