"""The table of services' addresses, for what has no port: pings, and fragments without a first one.

An address serves while any of its services has a usable backend for traffic from outside.
Not for node ports, whose addresses are the node's own: its stack answers for those.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpf.layout import FrontendType, Scope, View, Vip, VipFlag
from lb.plan import Plan, Unit
from lb.tables import Tables
from lb.writes import put_all, remove

_TYPES = {FrontendType.CLUSTER_IP, FrontendType.EXTERNAL_IP, FrontendType.LOAD_BALANCER}
_SERVES, _SILENT = Vip(VipFlag.SERVES).pack(), Vip(0).pack()

Addresses = tuple[tuple[bytes, bool], ...]
"""Packed addresses, and whether the unit serves there."""


class Vips:
    """Owns the table. Not thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.there: dict[bytes, bytes] = {}
        """What the table holds."""
        self._of: dict[Unit, Addresses] = {}
        self._users: dict[bytes, dict[Unit, bool]] = {}
        self._unsettled: set[bytes] = set()

    @property
    def settled(self) -> bool:
        """Does the table say what it should?"""
        return not self._unsettled

    def adopt(self, plans: Iterable[Plan]) -> None:
        """Take over what the table holds; these plans use it. Raises OSError."""
        self.there = dict(self._tables.vips.items())
        for plan in plans:
            self.note(plan)

    def note(self, plan: Plan) -> None:
        """The unit is to have these addresses from the next `write` on."""
        self._note(plan.unit, addresses(plan))

    def doom(self, unit: Unit) -> None:
        """The unit goes."""
        self._note(unit, ())

    def _note(self, unit: Unit, wanted: Addresses) -> None:
        before = self._of.get(unit, ())
        if before == wanted:
            return
        for address, _ in before:
            users = self._users[address]
            del users[unit]
            if not users:
                del self._users[address]
            self._unsettled.add(address)
        for address, serves in wanted:
            self._users.setdefault(address, {})[unit] = serves
            self._unsettled.add(address)
        self._of[unit] = wanted
        if not wanted:
            del self._of[unit]

    def write(self) -> None:
        """Make the table say so; what fails is tried again by the next."""
        wanted = {
            address: _SERVES if any(self._users[address].values()) else _SILENT
            for address in self._unsettled
            if address in self._users
        }
        wrong = {key: value for key, value in wanted.items() if self.there.get(key) != value}
        failed = put_all(self._tables, "vips", wrong)
        self.there |= {key: value for key, value in wrong.items() if key not in failed}
        gone = self._unsettled - wanted.keys()
        removed = remove(self._tables.vips, gone & self.there.keys())
        for key in removed:
            del self.there[key]
        self._unsettled = set(failed) | (gone & self.there.keys())

    def remove_unknown(self) -> None:
        """All is planned: what no unit has goes."""
        self._unsettled |= self.there.keys() - self._users.keys()
        self.write()


def addresses(plan: Plan) -> Addresses:
    """Where the unit answers, but for node ports and host ports; sorted."""
    usable = 0
    for backend in plan.backends:
        usable |= backend.views
    found = {
        frontend.key[:16]: bool(usable & 1 << _view(frontend.type))
        for frontend in plan.frontends
        if frontend.type in _TYPES and frontend.key[-1] == Scope.ADDRESS
    }
    return tuple(sorted(found.items()))


def _view(kind: FrontendType) -> View:
    return View.CLUSTER_IP if kind == FrontendType.CLUSTER_IP else View.OUTSIDE
