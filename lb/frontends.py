"""The table of frontends: who leads where, by the claims of all units.

What is touched is gathered by `claim` and `release`, and written by `write`: a frontend leads
to the unit that holds it, and goes when nobody claims it. Not for who holds what: that is
`lb.claims`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from bpf.layout import Frontend as FrontendRecord
from bpf.layout import FrontendKey
from lb.claims import Claims
from lb.model import Protocol
from lb.plan import Frontend, Plan, Unit
from lb.tables import Tables
from lb.writes import put_all, remove


class Written(msgspec.Struct):
    """What a round of writing did. `stores`: entries written or removed."""

    stores: int
    appeared: list[bytes]
    """Keys of UDP frontends that were not there before."""
    failed: dict[Unit, str]
    """Why, for each unit that lacks a frontend."""


class Frontends:
    """Owns the table and the claims. Not thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self.claims = Claims()
        self.there: dict[bytes, bytes] = {}
        """What the table holds."""
        self._tables = tables
        self._leading: dict[int, int] = {}
        """By service id, how many entries lead to it."""
        self._unsettled: set[bytes] = set()
        """Keys whose entry is yet to be looked at: touched, or not removed."""

    @property
    def settled(self) -> bool:
        """Does the table hold nothing that should be gone?"""
        return not self._unsettled

    def adopt(self, plans: Iterable[Plan]) -> None:
        """Take over what the table holds, claimed by these plans. Raises OSError."""
        for plan in plans:
            for frontend in plan.frontends:
                self.claims.claim(plan.unit, frontend)
        self._note_written(dict(self._tables.frontends.items()))

    def claim(self, unit: Unit, frontends: Iterable[Frontend]) -> None:
        """The unit wants these, besides what it has."""
        for frontend in frontends:
            self.claims.claim(unit, frontend)
            self._unsettled.add(frontend.key)

    def release(self, unit: Unit, kept: Collection[bytes]) -> None:
        """Give up the claims on all frontends but `kept`."""
        given_up = self.claims.of(unit) - set(kept)
        self.claims.release(unit, given_up)
        self._unsettled |= given_up

    def write(self, service_of: Callable[[Unit], int]) -> Written:
        """Make the table say what the claims say, as far as they were touched."""
        wanted: dict[bytes, bytes] = {}
        gone: list[bytes] = []
        for key in self._unsettled:
            claim = self.claims.held.get(key)
            if claim is None:
                gone.append(key)
            else:
                value = _value(service_of(claim.unit), claim.frontend)
                if self.there.get(key) != value:
                    wanted[key] = value
        gone = [key for key in gone if key in self.there]
        failed = put_all(self._tables, "frontends", wanted)
        written = {key: value for key, value in wanted.items() if key not in failed}
        appeared = [key for key in written if key not in self.there and _is_udp(key)]
        self._note_written(written)
        removed = self._remove(gone)
        self._unsettled = set(gone) - removed
        units = {self.claims.held[key].unit: error for key, error in failed.items()}
        return Written(len(written) + len(removed), appeared, units)

    def lead_to(self, service: int) -> bool:
        """Does any entry lead to this id?"""
        return service in self._leading

    def remove_leading_to(self, service: int) -> None:
        """For an id that goes: a removal failed, or a write of who takes over."""
        if self.lead_to(service):
            self._remove([key for key, value in self.there.items() if _service(value) == service])

    def remove_unclaimed(self) -> None:
        """Remove what nobody claims."""
        self._remove([key for key in self.there if key not in self.claims.held])

    def _remove(self, keys: Iterable[bytes]) -> set[bytes]:
        removed = remove(self._tables.frontends, keys)
        self._note_removed(removed)
        return removed

    def _note_written(self, entries: Mapping[bytes, bytes]) -> None:
        self._note_removed([key for key in entries if key in self.there])
        self.there |= entries
        for value in entries.values():
            self._leading[_service(value)] = self._leading.get(_service(value), 0) + 1

    def _note_removed(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            service = _service(self.there.pop(key))
            self._leading[service] -= 1
            if not self._leading[service]:
                del self._leading[service]


def _value(service: int, frontend: Frontend) -> bytes:
    return FrontendRecord(service, frontend.type, frontend.flags).pack()


def _service(value: bytes) -> int:
    """The service id in a packed frontend."""
    return int.from_bytes(value[:4], "little")


def _is_udp(key: bytes) -> bool:
    return FrontendKey.unpack(key).protocol == Protocol.UDP
