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
        self._wishes: dict[Unit, set[bytes]] = {}

    def of(self, unit: Unit) -> set[bytes]:
        """The keys of all frontends that `unit` claims, held or not."""
        return set(self._wishes.get(unit, ()))

    def claim(self, unit: Unit, frontend: Frontend) -> bool:
        """`unit` wants the frontend; False: another holds it, and `unit` waits."""
        key = frontend.key
        self._wishes.setdefault(unit, set()).add(key)
        holder = self.held.get(key)
        if holder is None or holder.unit == unit:
            self.held[key] = Claim(unit, frontend)
            return True
        if _is_cluster_ip(frontend) and not _is_cluster_ip(holder.frontend):
            self._waiting.setdefault(key, {})[holder.unit] = holder.frontend
            self.held[key] = Claim(unit, frontend)
            return True
        self._waiting.setdefault(key, {})[unit] = frontend
        return False

    def release(self, unit: Unit, keys: Iterable[bytes]) -> None:
        """`unit` no longer wants the frontends with these keys."""
        wishes = self._wishes.get(unit, set())
        for key in keys:
            wishes.discard(key)
            waiting = self._waiting.get(key, {})
            waiting.pop(unit, None)
            holder = self.held.get(key)
            if holder is None or holder.unit != unit:
                continue
            del self.held[key]
            if waiting:
                following = min(waiting, key=lambda one: (not _is_cluster_ip(waiting[one]), one))
                self.held[key] = Claim(following, waiting.pop(following))
            if not waiting:
                self._waiting.pop(key, None)
        if not wishes:
            self._wishes.pop(unit, None)

    def losses(self) -> list[tuple[Unit, bytes, Unit]]:
        """Who waits for which frontend, and who holds it."""
        return [
            (unit, key, self.held[key].unit)
            for key, waiting in self._waiting.items()
            for unit in waiting
        ]


def _is_cluster_ip(frontend: Frontend) -> bool:
    return frontend.type == FrontendType.CLUSTER_IP
