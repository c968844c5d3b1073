"""Reads back from the tables what they say: units with their plans, and what belongs to nobody.

One reading serves four: the agent that starts on the maps of the one before it, `verify`,
`show` with the agent dead, and the golden tests. It trusts nothing: an entry that contradicts
the rest is named and left for the caller to remove. Writes nothing.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bpf.layout import Backend as BackendRecord
from bpf.layout import (
    BackendFlag,
    BackendState,
    Empty,
    FrontendType,
    Line,
    NameKind,
    RangeKey,
    ServiceFlag,
    View,
)
from bpf.layout import Frontend as FrontendRecord
from bpf.layout import Service as ServiceRecord
from lb.address import Address, Prefix
from lb.names import unit_of, unpacked
from lb.placing import OWNER, STATE, Placed, Spot, Where
from lb.plan import VIEWS, Backend, Frontend, Plan, Unit, order
from lb.rings import backends_of, is_plausible
from lb.tables import Tables

GENERATION = 20
"""Where in struct backend its generation lies."""
_IN_USE = (BackendState.READY, BackendState.TERMINATING)
_STATES = {int(state): state for state in BackendState}
"""Of all: who reads beside an agent that writes may find one that was freed meanwhile."""
_PIECE = 4096
"""Backends that are read at once: a copy of the whole table would be 8 MB."""


class Found(msgspec.Struct):
    """Everything in the tables. Names by kind and id."""

    units: dict[Unit, Placed]
    torn: set[Unit]
    """Units whose entries contradict each other, as a kill in the midst of a switch leaves them."""
    extents: dict[int, tuple[tuple[int, int], ...]]
    """By service id, what its views point to: offset and lines of one run, but for torn ones."""
    generations: array[int]
    """By backend id; 0: never in use."""
    names: dict[tuple[NameKind, int], str]
    stray_services: list[int]
    """Ids in use, or led to, for no unit."""
    stray_backends: list[int]
    """Ids in use for no unit."""
    faults: list[str]
    """What contradicts itself, a line each."""


class _Lists(NamedTuple):
    masks: dict[int, int]
    weights: dict[int, int]
    """By backend id how often each list has it, where that is more than once."""
    extents: tuple[tuple[int, int], ...]
    broken: bool


def restore(tables: Tables) -> Found:
    """Read all tables. Raises OSError."""
    names = {}
    for key, value in tables.names.items():
        with suppress(ValueError):  # a kind that is not known here
            kind, number, text = unpacked(key, value)
            names[kind, number] = text
    nodes, zones = _of_kind(names, NameKind.NODE), _of_kind(names, NameKind.ZONE)
    frontends = _frontends(tables)
    ranges = _ranges(tables)
    backends, generations = _backends(tables)
    found = Found({}, set(), {}, generations, names, [], [], [])
    for number, record in _services(tables):
        lists = _lists(tables, record)
        found.extents[number] = lists.extents
        # Taken out as they are used: at the end no table is there twice.
        led, limits = frontends.pop(number, ()), ranges.pop(number, ())
        unit = _unit(names.get((NameKind.SERVICE, number), ""))
        if unit is None or unit in found.units:
            found.faults.append(f"service {number} has no name of its own")
            found.stray_services.append(number)
            continue
        own, copies = _without_copies(_records(tables, backends.pop(number, ())), lists.masks)
        found.stray_backends += copies
        plan = _plan(unit, record, own, lists, led, limits, nodes, zones)
        found.units[unit] = _placed(number, record, own, plan)
        if record.ring and not _leads_home(tables, record.ring, own, lists.masks):
            found.faults.append(f"{unit} has a ring of other backends than its list")
            found.torn.add(unit)
        if lists.broken or lists.masks.keys() - own.keys():
            found.faults.append(f"{unit} lists a backend that is not there")
            found.torn.add(unit)
        elif len(lists.extents) > 1 or any(
            one.views & VIEWS != lists.masks.get(number, 0) for number, one in own.items()
        ):
            found.faults.append(f"{unit} was left in the midst of a switch")
            found.torn.add(unit)
    for number in sorted(frontends.keys() | ranges.keys()):
        found.faults.append(f"service {number} is led to and not there")
        if 0 < number < tables.services.capacity:
            found.stray_services.append(number)
    for group in backends.values():
        found.stray_backends += group
    return found


def _of_kind(names: Mapping[tuple[NameKind, int], str], wanted: NameKind) -> dict[int, str]:
    return {number: text for (kind, number), text in names.items() if kind is wanted}


def _unit(text: str) -> Unit | None:
    try:
        return unit_of(text)
    except (ValueError, KeyError):
        return None


def _frontends(tables: Tables) -> dict[int, tuple[Frontend, ...]]:
    groups: dict[int, list[Frontend]] = defaultdict(list)
    for key, value in tables.frontends.items():
        record = FrontendRecord.unpack(value)
        with suppress(ValueError):  # a type that is not known here
            kind = FrontendType(record.type)
            groups[record.service].append(Frontend(key, kind, record.flags))
    return {service: tuple(sorted(group, key=order)) for service, group in groups.items()}


def _ranges(tables: Tables) -> dict[int, tuple[Prefix, ...]]:
    groups: dict[int, list[Prefix]] = defaultdict(list)
    for key, _ in tables.ranges.items():  # noqa: PERF102 - a map has no keys()
        record = RangeKey.unpack(key)
        groups[record.service].append(Prefix((Address(record.source), record.prefix - 32)))
    return {service: tuple(sorted(group)) for service, group in groups.items()}


def _services(tables: Tables) -> Iterator[tuple[int, ServiceRecord]]:
    """Those in use, with their ids."""
    size = tables.services.size
    raw = tables.services.read(0, tables.services.capacity)
    for number in range(1, tables.services.capacity):
        if raw[number * size + 32] & ServiceFlag.USED:  # cheap: most are not
            start = number * size
            yield number, ServiceRecord.unpack(raw[start : start + ServiceRecord.SIZE])


def _backends(tables: Tables) -> tuple[dict[int, array[int]], array[int]]:
    """The ids in use by service; and generations by id."""
    groups: dict[int, array[int]] = defaultdict(lambda: array("I"))
    generations = array("I")
    capacity, row = tables.backends.capacity, tables.backends.size // 4
    for first in range(0, capacity, _PIECE):
        raw = tables.backends.read(first, min(_PIECE, capacity - first))
        words = memoryview(raw).cast("I")
        generations.frombytes(words[GENERATION // 4 :: row].tobytes())
        states, services = words[STATE // 4 :: row], words[OWNER // 4 :: row]
        for number in range(max(first, 1), first + len(states)):  # id 0 is nobody
            state = states[number - first] >> 16 & 0xFF
            if generations[number] and state in _IN_USE:
                groups[services[number - first]].append(number)
    return groups, generations


def _records(tables: Tables, numbers: Sequence[int]) -> dict[int, BackendRecord]:
    """The records of these ids, in their order; those of ids in a row are read at once."""
    size, stride = BackendRecord.SIZE, tables.backends.size
    found = {}
    first = 0
    for i, number in enumerate(numbers, start=1):
        if i < len(numbers) and numbers[i] == number + 1:
            continue
        raw = tables.backends.read(numbers[first], i - first)
        for one, at in zip(numbers[first:i], range(0, len(raw), stride), strict=True):
            found[one] = BackendRecord.unpack(raw[at : at + size])
        first = i
    return found


@lru_cache(maxsize=4096)
def _shared(port: int) -> int:
    """A hundred thousand backends have few ports between them."""
    return port


def _without_copies(
    backends: dict[int, BackendRecord], masks: Mapping[int, int]
) -> tuple[dict[int, BackendRecord], list[int]]:
    """One id for each address and port, the one that is listed; and the ids of the others."""
    best: dict[Where, int] = {
        (Address(one.address), one.port): number for number, one in backends.items()
    }
    if len(best) == len(backends):
        return backends, []
    best.clear()
    for number in sorted(backends, key=lambda one: not masks.get(one)):
        best.setdefault((Address(backends[number].address), backends[number].port), number)
    copies = sorted(backends.keys() - best.values())
    return {number: backends[number] for number in best.values()}, copies


def _lists(tables: Tables, record: ServiceRecord) -> _Lists:
    """By backend id the views that list it, and where the lists lie."""
    masks: dict[int, int] = {}
    weights: dict[int, int] = {}
    lines: set[int] = set()
    broken = False
    for view, word in enumerate(record.view):
        count, line = word & 0xFFFFFFFF, word >> 32
        if not count:
            continue
        end = line + -(-count // Line.SLOTS)
        if not line or end > tables.slots.capacity:
            broken = True
            continue
        lines.update(range(line, end))
        slots = memoryview(tables.slots.read(line, end - line)).cast("I")
        times = Counter(slots[:count])
        for number, weight in times.items():
            masks[number] = masks.get(number, 0) | 1 << view
            if weight > 1:
                weights[number] = max(weight, weights.get(number, 1))
    return _Lists(masks, weights, _runs(lines), broken)


def _leads_home(
    tables: Tables, ring: int, own: Mapping[int, BackendRecord], masks: Mapping[int, int]
) -> bool:
    """Is the ring there, and of exactly the backends in view OUTSIDE?"""
    if not is_plausible(tables.rings, ring):
        return False
    wanted = {number for number in own if masks.get(number, 0) & 1 << View.OUTSIDE}
    return backends_of(tables.rings, ring) == wanted


def _runs(lines: set[int]) -> tuple[tuple[int, int], ...]:
    """One extent if the lines lie side by side as they were taken; else each line by itself."""
    if not lines:
        return ()
    start, count = min(lines), len(lines)
    aligned = start % (1 << (count - 1).bit_length()) == 0
    if aligned and max(lines) == start + count - 1:
        return ((start, count),)
    return tuple([(line, 1) for line in sorted(lines)])


def _plan(  # noqa: PLR0913, PLR0917 - one argument a table
    unit: Unit,
    record: ServiceRecord,
    backends: Mapping[int, BackendRecord],
    lists: _Lists,
    frontends: tuple[Frontend, ...],
    ranges: tuple[Prefix, ...],
    nodes: Mapping[int, str],
    zones: Mapping[int, str],
) -> Plan:
    found = [
        Backend(
            Address(one.address),
            _shared(one.port),
            _STATES[one.state],
            lists.masks.get(number, 0) | one.views & BackendFlag.HERE,
            nodes.get(one.node, ""),
            zones.get(one.zone, ""),
            lists.weights.get(number, 1),
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
        ranges=ranges,
        ring=bool(record.ring),
    )


def _placed(
    number: int,
    record: ServiceRecord,
    backends: Mapping[int, BackendRecord],
    plan: Plan,
) -> Placed:
    spots: dict[Where, Spot] = {
        (Address(one.address), _shared(one.port)): Spot(backend, one.node, one.zone)
        for backend, one in backends.items()
    }
    return Placed(
        service=number,
        plan=plan,
        backends=spots,
        views=(record.view[0], record.view[1], record.view[2]),
        affinity=record.affinity_epoch << 32 | record.affinity_seconds,
        ring=record.ring,
    )
