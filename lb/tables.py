"""The tables that the control plane writes, named once: the kernel's, or a set in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bpf import layout
from bpf.maps import Array, Hash, MemoryArray, MemoryHash, MemoryPerCpu, PerCpu
from bpf.pins import Pins

SIZES = {
    "frontends": 65536,
    "services": 32768,
    "slots": 32768,
    "rings": 1048576,
    "backends": 262144,
    "loads": 262144,
    "affinity": 65536,
    "flows": 16384,
    "counters": 32768,
    "listening": 1,
    "events": 262144,
    "dsr_flows": 131072,
    "hops": 262144,
    "scratches": 1,
    "fragments": 8192,
    "ranges": 65536,
    "cidrs": 256,
    "addresses": 1024 + 32768,
    "vips": 65536,
    "tracked": 65536,
    "devices": 16384,
    "node": 1,
    "names": 65536,
    "reasons": len(layout.Reason),
    "allowances": 1,
    "limits": 2048,
    "pods": 4096,
    "limit_names": 2048,
    "connected": 1,
    "unconnected": 1,
}
"""How much fits by default, in entries; of slots in lines of 16, of rings in
pairs of slots, of flows in rows of 8; of events in octets. Those of sockets have no size."""

NUMBERED = frozenset(("services", "backends", "loads", "counters", "slots", "rings", "limits"))
"""Arrays whose element 0 stands for nobody: they are one longer than what fits."""

PER_ENTRY = {"slots": layout.Line.SLOTS, "rings": 2}
"""What one entry of a table holds, where flags count that."""

FLAGS = {
    "frontends": "--max-frontends",
    "services": "--max-services",
    "slots": "--max-slots",
    "rings": "--max-rings",
    "backends": "--max-backends",
    "ranges": "--max-source-ranges",
    "limits": "--max-limits",
}
"""The flag that makes room in a table."""


def room(name: str, length: int) -> int:
    """How many entries fit into a table of this length."""
    return length - (name in NUMBERED)


class Fill(NamedTuple):
    """How many entries of a table are in use, and how many fit."""

    table: str
    used: int
    fits: int


@dataclass(frozen=True, slots=True)
class Tables:
    """What `placing` and `reconcile` write and `restore` reads back."""

    frontends: Hash
    services: Array
    slots: Array
    rings: Array
    backends: Array
    loads: Array
    ranges: Hash
    names: Hash
    vips: Hash
    counters: PerCpu = field(default_factory=lambda: MemoryPerCpu(layout.Counter.SIZE // 8))


def in_kernel(pins: Pins) -> Tables:
    """The pinned tables. Raises OSError if one is not there."""
    return Tables(
        frontends=pins.open_hash("frontends"),
        services=pins.open_array("services"),
        slots=pins.open_array("slots"),
        rings=pins.open_array("rings"),
        backends=pins.open_array("backends"),
        loads=pins.open_array("loads"),
        ranges=pins.open_hash("ranges"),
        names=pins.open_hash("names"),
        vips=pins.open_hash("vips"),
        counters=pins.open_per_cpu("counters"),
    )


def in_memory(sizes: Mapping[str, int] = SIZES) -> Tables:
    """Empty tables of these sizes that no kernel sees."""

    def array(name: str) -> MemoryArray:
        return MemoryArray(sizes[name], layout.TABLES[name].leaf.SIZE)

    return Tables(
        frontends=MemoryHash(sizes["frontends"]),
        services=array("services"),
        slots=array("slots"),
        rings=array("rings"),
        backends=array("backends"),
        loads=array("loads"),
        ranges=MemoryHash(sizes["ranges"]),
        names=MemoryHash(sizes["names"]),
        vips=MemoryHash(sizes["vips"]),
    )
