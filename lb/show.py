"""What the pinned maps hold, as the rows of `show`: right with the agent alive or dead.

Rows are plain dictionaries; the contract names their fields. Reads only.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from bpf import libbpf
from bpf.layout import (
    TABLES,
    AddressFlag,
    Affinity,
    AffinityKey,
    BackendState,
    ClientKind,
    DsrRowSize,
    FrontendKey,
    FrontendType,
    Load,
    NameKind,
    NodeAddress,
    Reason,
    RowSize,
    Scope,
)
from bpf.layout import Backend as BackendRecord
from bpf.maps import Array, Hash, open_array, totals
from bpf.pins import Pins
from lb import direct
from lb import flows as remembered
from lb.address import Address, family, show, show_port
from lb.names import unit_of, unpacked
from lb.placing import Placed, Spot, Where
from lb.plan import VIEWS, Backend, Plan, Unit
from lb.restore import restore
from lb.tables import Tables, room
from lb.traffic import Carried, Present, of_backend, of_service, pieces, present

Row = dict[str, Any]

TYPES = {
    FrontendType.CLUSTER_IP: "ClusterIP",
    FrontendType.NODE_PORT: "NodePort",
    FrontendType.EXTERNAL_IP: "ExternalIP",
    FrontendType.LOAD_BALANCER: "LoadBalancer",
    FrontendType.HOST_PORT: "HostPort",
}


def services(
    tables: Tables,
    addresses: Hash | None,
    failing: Sequence[Row] = (),
    flows: Array | None = None,
) -> list[Row]:
    """One row a service port, both families in it. `failing` is the agent's list, if it runs."""
    found = restore(tables)
    there = _present(flows)
    node = _node_port_addresses(addresses)
    rows: dict[tuple[str, str, str, str], Row] = {}
    for unit in sorted(found.units):
        placed = found.units[unit]
        if placed.plan is None:
            continue
        row = rows.setdefault(_key(unit), _empty_row(unit))
        row["frontends"] += _frontends(placed.plan, unit, node)
        row["backends"] += [
            _backend(one) | _carried_by(tables, placed, one, there) for one in placed.plan.backends
        ]
        for field, count in _counts(of_service(tables.counters, placed.service, there)).items():
            row[field] += count
    for one in failing:
        key = (one["namespace"], one["name"], one["port_name"], one["protocol"])
        row = rows.setdefault(key, dict(zip(_NAMED, key, strict=True)) | _nothing())
        row["state"], row["error"] = "failing", one["error"]
    return list(rows.values())


_NAMED = ("namespace", "name", "port_name", "protocol")


def _key(unit: Unit) -> tuple[str, str, str, str]:
    return unit.service.namespace, unit.service.name, unit.port, unit.protocol.name


def _nothing() -> Row:
    return {"frontends": [], "backends": [], "state": "applied", **_counts(Carried())}


def _present(flows: Array | None) -> Present:
    return present(pieces(flows) if flows is not None else (), time.monotonic_ns())


def _counts(carried: Carried) -> dict[str, int]:
    """As rows of services have them; packets and bytes are those of traffic from outside."""
    return {
        "connections_total": carried.connections,
        "packets": carried.packets,
        "bytes": carried.octets,
        "refusals": carried.refusals,
    }


def _carried_by(tables: Tables, placed: Placed, one: Backend, there: Present) -> dict[str, int]:
    spot = placed.backends[one.address, one.port]
    load = Load.unpack(tables.loads.read(spot.id))
    record = BackendRecord.unpack(tables.backends.read(spot.id))
    carried = of_backend(load, spot.id, record.generation, there)
    return {
        "connections": carried.open,
        "connections_total": carried.connections,
        "packets": carried.packets,
        "bytes": carried.octets,
    }


def _empty_row(unit: Unit) -> Row:
    return dict(zip(_NAMED, _key(unit), strict=True)) | _nothing()


def _node_port_addresses(addresses: Hash | None) -> list[Address]:
    if addresses is None:
        return []
    return sorted(
        Address(key)
        for key, value in addresses.items()
        if NodeAddress.unpack(value).flags & AddressFlag.NODE_PORT
    )


def _frontends(plan: Plan, unit: Unit, node: Iterable[Address]) -> list[Row]:
    """A node port stands once for each of this node's addresses that accepts it."""
    rows = []
    for frontend in plan.frontends:
        record = FrontendKey.unpack(frontend.key)
        places = [Address(record.address)]
        if record.scope == Scope.NODE:
            places = [one for one in node if family(one) is unit.family]
        rows += [
            {"type": TYPES[frontend.type], "address": show(one), "port": record.port}
            for one in places
        ]
    return rows


def _backend(one: Backend) -> Row:
    return {
        "address": show(one.address),
        "port": one.port,
        "state": "ready" if one.state is BackendState.READY else "terminating",
        "weight": one.weight,
        "node": one.node,
        "zone": one.zone,
    }


def backends(tables: Tables, flows: Array | None = None) -> list[Row]:
    """One row a backend of a service, with what it carries."""
    found = restore(tables)
    there = _present(flows)
    rows = []
    for unit in sorted(found.units):
        placed = found.units[unit]
        for one in placed.plan.backends if placed.plan is not None else ():
            spot = placed.backends[one.address, one.port]
            counts = _carried_by(tables, placed, one, there)
            rows.append(_backend_row(unit, one, spot) | counts)
    return rows


def _backend_row(unit: Unit, one: Backend, spot: Spot) -> Row:
    return {
        **dict(zip(_NAMED, _key(unit), strict=True)),
        **_backend(one),
        "id": spot.id,
        "takes_new_connections": one.views & VIEWS != 0,
    }


def affinity(tables: Tables, table: Hash) -> list[Row]:
    """One row a client that is remembered; a network namespace stands for its processes."""
    found = restore(tables)
    owners = {placed.service: (unit, placed) for unit, placed in found.units.items()}
    places = {
        (placed.service, spot.id): place
        for placed in found.units.values()
        for place, spot in placed.backends.items()
    }
    now = time.monotonic_ns()
    rows = []
    for key, value in table.items():
        where, memory = AffinityKey.unpack(key), Affinity.unpack(value)
        place = places.get((where.service, memory.backend))
        if place is None or found.generations[memory.backend] != memory.generation:
            continue
        unit, placed = owners[where.service]
        row = _affinity_row(where, memory, unit, placed, place, now)
        if row is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: (row["namespace"], row["name"], row["client"]))


def _affinity_row(  # noqa: PLR0913, PLR0917 - a join of five tables
    where: AffinityKey, memory: Affinity, unit: Unit, placed: Placed, place: Where, now: int
) -> Row | None:
    """None: no longer in force."""
    seconds, epoch = placed.affinity & 0xFFFFFFFF, placed.affinity >> 32
    age = (now - memory.used) / 1e9
    if memory.epoch != epoch or age >= seconds:
        return None
    high, low = struct.unpack_from("<II", where.client, 8)  # as bpf/connect.h puts them
    client = show(Address(where.client))
    return {
        **dict(zip(_NAMED, _key(unit), strict=True)),
        "family": unit.family.label,
        "client": f"netns:{high << 32 | low}" if where.kind == ClientKind.NETNS else client,
        "backend": show_port(*place),
        "seconds_left": round(seconds - age),
    }


def flows(table: Array, names: Hash) -> list[Row]:
    """One row a connection from outside that is alive, by client."""
    now = time.monotonic_ns()
    found = [flow for piece in pieces(table) for flow in remembered.alive(piece, now)]
    return remembered.rows(found, _units(names), now)


def direct_flows(table: Array, tables: Tables, addresses: Hash) -> list[Row]:
    """One row a connection whose answers do not come by, by client."""
    now = time.monotonic_ns()
    raw = table.read(0, table.capacity)
    if not any(raw):  # no service is served so; the rest takes a while
        return []
    found = restore(tables)
    own = [
        Address(key)
        for key, value in addresses.items()
        if NodeAddress.unpack(value).flags & AddressFlag.NODE_PORT
    ]
    targets = {
        spot.id: direct.Target(
            direct.Place(*place), found.generations[spot.id], unit, _asked_at(placed, own)
        )
        for unit, placed in found.units.items()
        for place, spot in placed.backends.items()
    }
    return direct.rows(direct.alive(raw, targets), now)


def _asked_at(placed: Placed, own: Sequence[Address]) -> tuple[direct.Place, ...]:
    """Where packets for the unit can be sent to."""
    places = []
    for frontend in placed.plan.frontends if placed.plan else ():
        key = FrontendKey.unpack(frontend.key)
        at = own if key.scope == Scope.NODE else [Address(key.address)]
        places += [direct.Place(address, key.port) for address in at]
    return tuple(places)


def _units(names: Hash) -> dict[int, Unit]:
    """By service id. What is no name of a unit is left out."""
    units = {}
    for key, value in names.items():
        with suppress(ValueError, KeyError):
            kind, number, text = unpacked(key, value)
            if kind is NameKind.SERVICE:
                units[number] = unit_of(text)
    return units


_WAYS = {"flows": RowSize.WAYS, "dsr_flows": DsrRowSize.WAYS}


def maps(pins: Pins, tables: Tables) -> list[Row]:
    """One row a table: entries in use and how many fit, bytes of one and of all locked memory."""
    found = restore(tables)
    used = {
        "services": len(found.units),
        "slots": sum(lines for group in found.extents.values() for _, lines in group),
        "rings": sum((placed.ring & 0xFFFFFFFF) + 1 >> 1 for placed in found.units.values()),
        "backends": sum(len(placed.backends) for placed in found.units.values()),
    }
    used["loads"], used["counters"] = used["backends"], used["services"]
    flows = pins.find_map("flows")
    if flows is not None:
        now = time.monotonic_ns()
        read = pieces(open_array(flows))
        used["flows"] = sum(1 for piece in read for _ in remembered.alive(piece, now))
    direct_flows = pins.find_map("dsr_flows")
    if direct_flows is not None:
        read = pieces(open_array(direct_flows))
        used["dsr_flows"] = sum(direct.count(piece, time.monotonic_ns()) for piece in read)
    rows = []
    for name, table in TABLES.items():
        path = pins.find_map(name)
        if path is None:
            continue
        fd = libbpf.open_pin(str(path))
        info = libbpf.map_info(fd)
        entries = used.get(name)
        if table.kind in ("hash", "lru_hash", "lpm_trie"):
            entries = sum(1 for _ in pins.open_hash(name).items())
        rows.append(
            {
                "map": name,
                "kind": table.kind,
                "entries": entries,
                "capacity": _capacity(name, table.kind, info.max_entries),
                "entry_bytes": info.key_size + info.value_size,
                "memory_bytes": libbpf.locked_memory(fd),
                "id": info.id,
            }
        )
        libbpf.close(fd)
    return rows


def _capacity(name: str, kind: str, entries: int) -> int | None:
    """How many fit; None for what has no such number."""
    if kind in ("sk_storage", "ringbuf"):
        return None
    return room(name, entries) * _WAYS.get(name, 1)


def drops(pins: Pins) -> list[Row]:
    """How often each reason met a socket call or a packet, since the maps were made."""
    return [{"reason": reason, "count": count} for reason, count in counted(pins).items()]


def counted(pins: Pins) -> dict[str, int]:
    """The same by reason. Raises OSError."""
    path = pins.find_map("reasons")
    if path is None:
        raise FileNotFoundError(2, "no map reasons")
    found = totals(path)
    return {reason.name.lower(): found[reason] for reason in Reason if reason is not Reason.NONE}
