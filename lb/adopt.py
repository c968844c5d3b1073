"""Starts on maps that an agent before left: marks what is in use, and keeps what is nobody's.

What is nobody's goes only once all is planned (`Strays.free`): until then it may still carry
traffic. Not for reading the maps: that is `lb.restore`.
"""

from __future__ import annotations

from typing import NamedTuple

from bpf.layout import NameKind
from bpf.layout import Service as ServiceRecord
from lb.placing import EMPTY, STATE, Placed, Placer
from lb.restore import Found


class Strays(NamedTuple):
    """Ids found in use for nobody: services with the offsets of their lists, and backends."""

    services: dict[int, tuple[int, ...]]
    backends: list[int]

    def free(self, placer: Placer, now: float) -> None:
        """Once no frontend leads to them and no service lists them. `now` in seconds."""
        size = ServiceRecord.SIZE
        for number, lines in self.services.items():
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
    for number in found.stray_backends:
        placer.backends.restore(number)
    services = {}
    for number in found.stray_services:
        placer.services.restore(number)
        services[number] = _adopt_lines(number, found, placer)
    return Strays(services, found.stray_backends)


def _adopt_unit(placed: Placed, found: Found, placer: Placer) -> None:
    placer.services.restore(placed.service)
    for spot in placed.backends.values():
        placer.backends.restore(spot.id)
        spot.node = placer.names.use(NameKind.NODE, found.names.get((NameKind.NODE, spot.node), ""))
        spot.zone = placer.names.use(NameKind.ZONE, found.names.get((NameKind.ZONE, spot.zone), ""))
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
