"""The table of frontends: who leads where, by the claims of all units.

What is touched is gathered by `claim` and `release`, and written by `write`: a frontend leads
to the unit that holds it, and goes when nobody claims it. Not for who holds what: that is
`lb.claims`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import msgspec

from bpf.layout import Frontend as FrontendRecord
from bpf.layout import FrontendKey, Scope
from lb.claims import Claims
from lb.errors import MapFull
from lb.model import Protocol
from lb.plan import Frontend, Plan, Unit
from lb.tables import Tables
from lb.writes import full, put, put_all, remove

_PORT, _SCOPE = slice(16, 18), 19
"""Where in a packed key they lie: half a million keys need no unpacking."""
Entries = dict[bytes, bytes]
"""Packed frontends by packed key."""


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
        self.node_ports = range(65536, 65536)
        """From the least to the greatest that there was; it never shrinks."""
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
        """Make the table say what the claims say, for all units that were touched.

        A unit gets all of the frontends that it holds, or none that does not lead to it yet.
        """
        held = self.claims.held
        gone = [key for key in self._unsettled if key not in held and key in self.there]
        touched = {held[key].unit for key in self._unsettled if key in held}
        wanted = {unit: self._wanted(unit, service_of(unit)) for unit in sorted(touched)}
        removed = set()
        if sum(map(self._growth, wanted.values())) > self._room():
            removed = self._remove(gone)
        fitting, failed = self._fitting(wanted, service_of)
        written, refused = self._write(fitting)
        failed |= refused
        appeared = [key for key in written if key not in self.there and _is_udp(key)]
        self._note_written(written)
        for unit in failed:
            gone += [key for key in wanted[unit] if self._is_left(key, service_of)]
        removed |= self._remove([key for key in gone if key not in removed])
        self._unsettled = set(gone) - removed
        return Written(len(written) + len(removed), appeared, failed)

    def _wanted(self, unit: Unit, service: int) -> Entries:
        """What the unit holds and the table does not say."""
        wanted = {}
        for key in self.claims.of(unit):
            claim = self.claims.held[key]
            value = _value(service, claim.frontend)
            if claim.unit == unit and self.there.get(key) != value:
                wanted[key] = value
        return wanted

    def _room(self) -> int:
        return self._tables.frontends.capacity - len(self.there)

    def _growth(self, entries: Entries) -> int:
        # Not by `-` of the two key views: that walks all of the table's keys.
        return sum(key not in self.there for key in entries)

    def _fitting(
        self, wanted: Mapping[Unit, Entries], service_of: Callable[[Unit], int]
    ) -> tuple[dict[Unit, Entries], dict[Unit, str]]:
        """What there is room for; and why, for each unit that has to do with what it had."""
        room = self._room()
        fitting, failed = {}, {}
        for unit, entries in wanted.items():
            growth = self._growth(entries)
            if growth <= room:
                room -= growth
                fitting[unit] = entries
            else:
                failed[unit] = str(full("frontends", self._tables.frontends.capacity))
                own = service_of(unit)
                fitting[unit] = {k: v for k, v in entries.items() if self._leads(k) == own}
        return fitting, failed

    def _write(self, units: Mapping[Unit, Entries]) -> tuple[Entries, dict[Unit, str]]:
        """All in one batch, or else unit by unit; what was written, and why not the rest."""
        together = {key: value for entries in units.values() for key, value in entries.items()}
        with suppress(MapFull, OSError):
            if together:
                put(self._tables, "frontends", together)
            return together, {}
        written: Entries = {}
        failed = {}
        for unit, entries in units.items():
            errors = put_all(self._tables, "frontends", entries)
            undone = set(errors)
            if errors:
                failed[unit] = next(iter(errors.values()))
                # Those with errors too: the batch may have written them.
                fresh = [key for key in entries if key not in self.there]
                undone |= remove(self._tables.frontends, fresh)
            written |= {key: value for key, value in entries.items() if key not in undone}
        return written, failed

    def _leads(self, key: bytes) -> int | None:
        return _service(self.there[key]) if key in self.there else None

    def _is_left(self, key: bytes, service_of: Callable[[Unit], int]) -> bool:
        """Does its entry lead to a service that no longer asks for it?"""
        asking = {service_of(unit) for unit in self.claims.claimants(key)}
        return key in self.there and self._leads(key) not in asking

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
        for key, value in entries.items():
            self._leading[_service(value)] = self._leading.get(_service(value), 0) + 1
            if key[_SCOPE] == Scope.NODE:
                port, ports = int.from_bytes(key[_PORT], "big"), self.node_ports
                last = max(port, ports.stop - 1) if ports else port
                self.node_ports = range(min(port, ports.start), last + 1)

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
