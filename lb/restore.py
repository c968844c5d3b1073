"""Reads back from the tables what they say: units with their plans, and what belongs to nobody.

One reading serves four: the agent that starts on the maps of the one before it, `verify`,
`show` with the agent dead, and the golden tests. It trusts nothing: an entry that contradicts
the rest is an orphan, named and left for the caller to remove. Writes nothing.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from bpf.layout import Backend as BackendRecord
from bpf.layout import BackendState, Empty, FrontendType, NameKind
from bpf.layout import Frontend as FrontendRecord
from bpf.layout import Line, RangeKey, ServiceFlag
from bpf.layout import Service as ServiceRecord
from lb.address import Address, Prefix
from lb.names import unit_of, unpacked
from lb.placing import Placed, Spot, Where
from lb.plan import Backend, Frontend, Plan, Unit, order
from lb.tables import Tables


class Found(msgspec.Struct):
    """Everything in the tables. Names by kind and id; `orphans` are keys of frontends and ranges."""

    units: dict[Unit, Placed]
    extents: dict[Unit, tuple[int, int]]
    """Offset and lines of each unit that has any."""
    generations: array[int]
    """By backend id; 0: never in use."""
    names: dict[tuple[NameKind, int], str]
    orphan_frontends: list[bytes]
    orphan_ranges: list[bytes]
    stray_services: list[int]
    stray_backends: list[int]
    """Ids in use for no unit."""
    faults: list[str]
    """What contradicts itself, a line each."""


class _Lists(NamedTuple):
    masks: dict[int, int]
    extent: tuple[int, int] | None


def restore(tables: Tables) -> Found:
    """Read all tables. Raises OSError."""
    names = {}
    for key, value in tables.names.items():
        kind, number, text = unpacked(key, value)
        names[kind, number] = text
    frontends = _frontends(tables)
    ranges = _ranges(tables)
    backends, generations = _backends(tables)
    found = Found({}, {}, generations, names, [], [], [], [], [])
    services = _services(tables)
    for number, record in services.items():
        unit = _unit(names.get((NameKind.SERVICE, number), ""))
        if unit is None or unit in found.units:
            found.faults.append(f"service {number} has no name of its own")
            found.stray_services.append(number)
            continue
        lists = _lists(tables, record, found.faults, unit)
        own = backends.pop(number, {})
        plan = _plan(unit, record, own, lists.masks, frontends.pop(number, ()), names)
        plan = msgspec.structs.replace(plan, ranges=ranges.pop(number, ()))
        found.units[unit] = _placed(number, record, own, plan, lists)
        if lists.extent is not None:
            found.extents[unit] = lists.extent
        if set(lists.masks) - set(own):
            found.faults.append(f"{unit} lists a backend that is not there")
            found.units[unit].plan = None
    found.orphan_frontends = [one.key for group in frontends.values() for one in group]
    found.orphan_ranges = [_range_key(s, one) for s, group in ranges.items() for one in group]
    found.stray_backends = [number for group in backends.values() for number in group]
    return found


def _unit(text: str) -> Unit | None:
    try:
        return unit_of(text)
    except (ValueError, KeyError):
        return None


def _frontends(tables: Tables) -> dict[int, tuple[Frontend, ...]]:
    groups: dict[int, list[Frontend]] = defaultdict(list)
    for key, value in tables.frontends.items():
        record = FrontendRecord.unpack(value)
        groups[record.service].append(Frontend(key, FrontendType(record.type), record.flags))
    return {service: tuple(sorted(group, key=order)) for service, group in groups.items()}


def _ranges(tables: Tables) -> dict[int, tuple[Prefix, ...]]:
    groups: dict[int, list[Prefix]] = defaultdict(list)
    for key, _ in tables.ranges.items():
        record = RangeKey.unpack(key)
        groups[record.service].append(Prefix((Address(record.source), record.prefix - 32)))
    return {service: tuple(sorted(group)) for service, group in groups.items()}


def _range_key(service: int, prefix: Prefix) -> bytes:
    return RangeKey(prefix[1] + 32, service, prefix[0]).pack()


def _services(tables: Tables) -> dict[int, ServiceRecord]:
    size = tables.services.size
    raw = tables.services.read(0, tables.services.capacity)
    records = {}
    for number in range(tables.services.capacity):
        if raw[number * size + 32] & ServiceFlag.USED:  # cheap: most are not
            start = number * size
            records[number] = ServiceRecord.unpack(raw[start : start + ServiceRecord.SIZE])
    return records


def _backends(
    tables: Tables,
) -> tuple[dict[int, dict[int, BackendRecord]], array[int]]:
    """In use by service and id; and generations by id."""
    groups: dict[int, dict[int, BackendRecord]] = defaultdict(dict)
    raw = tables.backends.read(0, tables.backends.capacity)
    generations = array("I", memoryview(raw).cast("I")[5 :: tables.backends.size // 4].tobytes())
    for number, generation in enumerate(generations):
        if not generation:
            continue
        start = number * tables.backends.size
        record = BackendRecord.unpack(raw[start : start + BackendRecord.SIZE])
        if record.state != BackendState.FREE:
            groups[record.service][number] = record
    return groups, generations


def _lists(tables: Tables, record: ServiceRecord, faults: list[str], unit: Unit) -> _Lists:
    """By backend id the views that list it, and where the lists lie."""
    masks: dict[int, int] = {}
    spans = set()
    for view, word in enumerate(record.view):
        count, line = word & 0xFFFFFFFF, word >> 32
        if not count:
            continue
        lines = -(-count // Line.SLOTS)
        spans.add((line, lines))
        try:
            raw = tables.slots.read(line, lines)
        except IndexError:
            faults.append(f"{unit} points beyond the slots")
            continue
        slots = memoryview(raw).cast("I")
        for number in slots[:count]:
            masks[number] = masks.get(number, 0) | 1 << view
    if not spans:
        return _Lists(masks, None)
    start = min(line for line, _ in spans)
    end = max(line + lines for line, lines in spans)
    return _Lists(masks, (start, end - start))


def _plan(  # noqa: PLR0913, PLR0917 - one argument a table
    unit: Unit,
    record: ServiceRecord,
    backends: Mapping[int, BackendRecord],
    masks: Mapping[int, int],
    frontends: tuple[Frontend, ...],
    names: Mapping[tuple[NameKind, int], str],
) -> Plan:
    found = [
        Backend(
            Address(one.address),
            one.port,
            BackendState(one.state),
            masks.get(number, 0),
            names.get((NameKind.NODE, one.node), ""),
            names.get((NameKind.ZONE, one.zone), ""),
        )
        for number, one in backends.items()
    ]
    empty = [Empty.REFUSE if w & 0xFFFFFFFF else Empty(w >> 32 & 1) for w in record.view]
    return Plan(
        unit=unit,
        frontends=frontends,
        backends=tuple(sorted(found, key=lambda one: (one.address, one.port))),
        empty=(empty[0], empty[1], empty[2]),
        affinity_seconds=record.affinity_seconds,
        ranges=(),
    )


def _placed(
    number: int,
    record: ServiceRecord,
    backends: Mapping[int, BackendRecord],
    plan: Plan,
    lists: _Lists,
) -> Placed:
    spots: dict[Where, Spot] = {
        (Address(one.address), one.port): Spot(backend, one.node, one.zone)
        for backend, one in backends.items()
    }
    return Placed(
        service=number,
        plan=plan,
        backends=spots,
        extents=(lists.extent[0],) if lists.extent is not None else (),
        views=(record.view[0], record.view[1], record.view[2]),
        affinity=record.affinity_epoch << 32 | record.affinity_seconds,
    )


