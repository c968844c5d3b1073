"""Starts on maps that an agent before left: marks what is in use, and keeps what is nobody's.

What is nobody's goes only once all is planned (`Strays.free`): until then it may still carry
traffic. Not for reading the maps: that is `lb.restore`.
"""

from __future__ import annotations

from typing import NamedTuple

from bpf.layout import NameKind, View
from bpf.layout import Service as ServiceRecord
from lb.placing import EMPTY, STATE, Placed, Placer
from lb.plan import Plan
from lb.restore import Found
from lb.rings import RING


class Strays(NamedTuple):
    """Ids found in use for nobody: services with the offsets of their lists, and backends.

    `rings` are words of Maglev rings, by service.
    """

    services: dict[int, tuple[int, ...]]
    rings: dict[int, int]
    backends: list[int]

    def free(self, placer: Placer, now: float) -> None:
        """Once no frontend leads to them and no service lists them. `now` in seconds."""
        size = ServiceRecord.SIZE
        for number, lines in self.services.items():
            if self.rings[number]:
                self.rings[number] = placer.rings.switch(number, self.rings[number], (), now)
            before = ServiceRecord.unpack(placer.tables.services.read(number)[:size])
            record = ServiceRecord(EMPTY, 0, before.affinity_epoch, 0, 0)
            placer.tables.services.write(number, record.pack())
            for offset in lines:
                placer.lines.release(offset, now)
            placer.services.release(number, now)
        for number in self.backends:
            placer.tables.backends.store_word(number, STATE, placer.generations[number] << 32)
            placer.backends.release(number, now)


def adopt(found: Found, placer: Placer) -> Strays:
    """Give a fresh placer all that was found; new faults are added to those found.

    Units whose entries cannot be trusted lose their plan, and so are written whole.
    """
    placer.generations = found.generations
    for (kind, number), text in found.names.items():
        if kind is not NameKind.SERVICE:
            placer.names.restore(kind, number, text)
    for unit, placed in found.units.items():
        _adopt_unit(placed, found, placer)
        if unit in found.torn or len(placed.extents) != len(found.extents[placed.service]):
            placed.plan = None
        placed.ring = _adopt_ring(placed.service, placed.ring, found, placer)
        if placed.plan is not None and not _is_of_size(placed, placed.plan, placer):
            placed.plan = None
    for number in found.stray_backends:
        placer.backends.restore(number)
    services, rings = {}, {}
    for number in found.stray_services:
        placer.services.restore(number)
        services[number] = _adopt_lines(number, found, placer)
        raw = placer.tables.services.read(number)[: ServiceRecord.SIZE]
        rings[number] = _adopt_ring(number, ServiceRecord.unpack(raw).ring, found, placer)
    return Strays(services, rings, found.stray_backends)


def _adopt_unit(placed: Placed, found: Found, placer: Placer) -> None:
    placer.services.restore(placed.service)
    restore, use = placer.backends.restore, placer.names.use_known
    for spot in placed.backends.values():
        restore(spot.id)
        spot.node = use(NameKind.NODE, spot.node)
        spot.zone = use(NameKind.ZONE, spot.zone)
    placed.extents = _adopt_lines(placed.service, found, placer)


def _adopt_lines(service: int, found: Found, placer: Placer) -> tuple[int, ...]:
    """The offsets of the extents in use, without those that overlap another's."""
    offsets = []
    for offset, lines in found.extents.get(service, ()):
        try:
            placer.lines.restore(offset, lines)
            offsets.append(offset)
        except ValueError as error:
            found.faults.append(f"service {service}: {error}")
    return tuple(offsets)


def _adopt_ring(service: int, word: int, found: Found, placer: Placer) -> int:
    """The ring in use; one that is not there, or lies over another's, is taken off at once."""
    if not word:
        return 0
    try:
        placer.rings.restore(word)
    except ValueError as error:
        found.faults.append(f"service {service}: {error}")
        placer.tables.services.store_word(service, RING, 0)
        return 0
    return word


def _is_of_size(placed: Placed, plan: Plan, placer: Placer) -> bool:
    """Has the unit the ring that this agent would build? Who is in it was looked at before."""
    count = sum(one.views >> View.OUTSIDE & 1 for one in plan.backends)
    return placed.ring & 0xFFFFFFFF == (placer.rings.size(count) if count else 0)
