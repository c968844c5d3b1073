"""Who owns each frontend when two services ask for the same one.

A cluster IP always wins over the rest; among equals whoever holds the frontend keeps it, so
that a newcomer cannot take traffic away; else the first by name. When the holder leaves, the
next claimant takes over by itself. Pure; keys are packed, units compare by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bpf.layout import FrontendType
from lb.plan import Frontend, Unit


class Claim(NamedTuple):
    """A unit's wish for a frontend."""

    unit: Unit
    frontend: Frontend


class Claims:
    """All wishes, and who holds what."""

    def __init__(self) -> None:
        self.held: dict[bytes, Claim] = {}
        self._waiting: dict[bytes, dict[Unit, Frontend]] = {}
        # Tuples: most units have one frontend, and a set of one takes four times as much.
        self._wishes: dict[Unit, tuple[bytes, ...]] = {}

    def of(self, unit: Unit) -> set[bytes]:
        """The keys of all frontends that `unit` claims, held or not."""
        return set(self._wishes.get(unit, ()))

    def claim(self, unit: Unit, frontend: Frontend) -> bool:
        """`unit` wants the frontend; False: another holds it, and `unit` waits."""
        key = frontend.key
        wishes = self._wishes.get(unit, ())
        if key not in wishes:
            self._wishes[unit] = (*wishes, key)
        holder = self.held.get(key)
        rivals = self._waiting.pop(key, {})
        rivals[unit] = frontend
        if holder is not None and holder.unit != unit:
            rivals[holder.unit] = holder.frontend
        self._settle(key, rivals, holder.unit if holder is not None else unit)
        return self.held[key].unit == unit

    def release(self, unit: Unit, keys: Iterable[bytes]) -> None:
        """`unit` no longer wants the frontends with these keys."""
        wishes = self._wishes.pop(unit, ())
        given_up = set(keys).intersection(wishes)
        left = tuple([key for key in wishes if key not in given_up])
        if left:
            self._wishes[unit] = left
        for key in given_up:
            holder = self.held.pop(key)
            rivals = self._waiting.pop(key, {})
            rivals[holder.unit] = holder.frontend
            del rivals[unit]
            self._settle(key, rivals, holder.unit)

    def _settle(self, key: bytes, rivals: dict[Unit, Frontend], incumbent: Unit) -> None:
        """The best of the rivals holds the frontend, the others wait."""
        if not rivals:
            return
        best = min(rivals, key=lambda one: (not _is_cluster_ip(rivals[one]), one != incumbent, one))
        self.held[key] = Claim(best, rivals.pop(best))
        if rivals:
            self._waiting[key] = rivals

    def claimants(self, key: bytes) -> list[Unit]:
        """Who holds the frontend, and then all who wait for it."""
        holder = [self.held[key].unit] if key in self.held else []
        return holder + list(self._waiting.get(key, ()))

    def losses(self) -> list[tuple[Unit, bytes, Unit]]:
        """Who waits for which frontend, and who holds it."""
        return [
            (unit, key, self.held[key].unit)
            for key, waiting in self._waiting.items()
            for unit in waiting
        ]


def _is_cluster_ip(frontend: Frontend) -> bool:
    return frontend.type == FrontendType.CLUSTER_IP
