"""Whatever is altered in the tables is put back, and nothing else is touched."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bpf.layout import Backend, BackendState, Service, ServiceFlag
from lb.address import Family, parse, parse_prefix
from lb.mending import Mender
from lb.model import Change, Key, Kind, Policy
from lb.status import differences
from tests.unit.lb.faulty import Watch, watched
from tests.unit.lb.making import numbered, service, slice_of
from tests.unit.lb.test_controller import Bench, changes

RANGES = (parse_prefix("192.0.2.0/24"), parse_prefix("198.51.100.0/25"))
ARRAYS = ("services", "slots", "rings", "backends")
HASHES = ("frontends", "ranges", "names", "addresses", "vips")


def made(watch: Watch | None = None) -> Bench:
    """Services with and without rings, ranges and lists of their own, and one that is gone."""
    bench = Bench(watch or unwatched())
    bench.controller.addresses.table = bench.table
    bench.apply(
        service("web", "10.96.0.10", "fd00::10", node_port=30080),
        slice_of("web", *numbered(range(1, 20), "n1")),
        slice_of("web", "1", "2 n2", which=Family.IPV6),
        service(
            "lb", "10.96.0.11", load_balancer_ips=(parse("203.0.113.1"),), source_ranges=RANGES,
            external_policy=Policy.LOCAL, affinity_seconds=60,
        ),
        slice_of("lb", "1 n1", "2 n2", "3 n2 draining"),
        service("empty", "10.96.0.12"),
        service("gone", "10.96.0.13", node_port=30081),
        slice_of("gone", "5", "6"),
    )  # fmt: skip
    bench.sync()
    bench.controller.changed([Change(Key(Kind.SERVICE, "default", "gone"), None)])
    bench.controller.turn(1.0)
    return bench


def unwatched() -> Watch:
    """Tables in which anything may stand."""
    watch = watched()
    watch.tables = watch.plain
    return watch


def tables(bench: Bench) -> dict[str, Any]:
    """By name, those that are looked at."""
    plain = bench.watch.plain
    found = {
        name: getattr(plain, name) for name in (*ARRAYS, "frontends", "ranges", "names", "vips")
    }
    return found | {"addresses": bench.table}


def content(bench: Bench) -> dict[str, object]:
    """All that is in the tables."""
    return {
        name: dict(one.items()) if name in HASHES else one.read(0, one.capacity)
        for name, one in tables(bench).items()
    }


def mender_of(bench: Bench) -> Mender:
    """One that has looked at everything."""
    mender = Mender(bench.reconciler, bench.controller.addresses)
    assert mended(mender) == []
    return mender


def mended(mender: Mender) -> list[str]:
    """The lines of one round."""
    return [line for line in mender.mend() if line]


def in_force(bench: Bench) -> dict[str, list[tuple[int, int]]]:
    """The words, element and offset, of the arrays that anything leads to."""
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in ARRAYS}
    for placed in bench.reconciler.units.values():
        found["services"] += [(placed.service, offset) for offset in range(0, 48, 8)]
        for spot in placed.backends.values():
            found["backends"] += [(spot.id, offset) for offset in range(0, 32, 8)]
        for word in placed.views or ():
            if word & 0xFFFFFFFF:
                found["slots"].append((word >> 32, 0))
        if placed.ring:
            first, size = placed.ring >> 33, placed.ring & 0xFFFFFFFF
            found["rings"] += [(first, 0), (first + (size - 1) // 2, 0)]
    return found


def test_what_is_right_is_not_touched() -> None:
    """A round over good tables writes nothing."""
    bench = made(watched())
    before = bench.watch.stores
    mended(mender_of(bench))
    assert bench.watch.stores == before


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_all_damage_is_mended(seed: int, count: int) -> None:
    """Whatever words and entries are altered, one round later all is as it was."""
    bench = made()
    mender = mender_of(bench)
    before = content(bench)
    chance = random.Random(seed)
    there = tables(bench)
    words = [(name, *where) for name, ones in in_force(bench).items() for where in ones]
    entries = [(name, key) for name in HASHES for key, _ in there[name].items()]
    for _ in range(count):
        if chance.random() < 0.5:
            name, index, offset = chance.choice(words)
            old = int.from_bytes(there[name].read(index)[offset : offset + 8], "little")
            there[name].store_word(index, offset, old ^ 1 << chance.randrange(32))
        else:
            name, key = chance.choice(entries)
            alter = chance.choice(("remove", "change", "add"))
            table = there[name]
            if alter == "remove":
                table.remove([key])
            elif alter == "change" and table.get(key) is not None:
                value = bytearray(table.get(key) or b"")
                value[chance.randrange(len(value))] ^= 1
                table.put({key: bytes(value)})
            elif name in ("frontends", "addresses", "ranges", "vips"):
                table.put({chance.randbytes(len(key)): bytes(4)})
    damaged = content(bench) != before
    assert bool(mended(mender)) == damaged
    assert content(bench) == before
    assert differences(bench.reconciler) == []
    assert mended(mender) == []


def test_ids_of_nobody_are_freed() -> None:
    """What claims to be in use under a free id would come back to who remembers it."""
    bench = made()
    mender = mender_of(bench)
    plain = bench.watch.plain
    plain.services.store_word(20, 32, ServiceFlag.USED)
    plain.backends.store_word(100, 16, 7 << 32 | BackendState.READY << 16)
    assert mended(mender) == ["service 20, which is nobody's", "backend 100, which is nobody's"]
    assert not Service.unpack(plain.services.read(20)).flags
    assert Backend.unpack(plain.backends.read(100)).state == BackendState.FREE


def test_a_round_may_be_interrupted_by_any_change() -> None:
    """Services come, change and go between any two steps, and nothing of it is undone."""
    bench = made()
    steps = Mender(bench.reconciler, bench.controller.addresses).mend()
    for number, line in enumerate(steps):
        assert not line
        name = f"s{number % 5}"
        if number % 3:
            ends = numbered(range(number % 4 + 1), "n1")
            at = f"10.96.1.{number % 7}"
            one = service(
                name, at, load_balancer_ips=(parse(f"203.0.113.{number % 3 + 10}"),),
                source_ranges=RANGES[number % 2 :],
            )  # fmt: skip
            bench.controller.changed(changes(one, slice_of(name, *ends)))
        else:
            bench.controller.changed([Change(Key(Kind.SERVICE, "default", name), None)])
        bench.controller.turn(10.0 + 3 * number)
        assert differences(bench.reconciler) == []
