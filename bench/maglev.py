"""How long a Maglev table takes to build from Python, and how many slots a change moves.

`python -m bench.maglev`. Each build has another seed, so that no branch predictor learns the
table. Cold: `build`, names hashed. Warm: `fill` of prepared backends into a buffer that is there.
Published: a table that is built is put into the kernel's map and made the service's by one store,
so that a packet sees the old one or the new one, whole; needs root.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.report import Value, report
from bpf.pins import BPFFS, Pins, mount
from lb.address import parse
from lb.rings import RING, Member, Rings, slots_of
from lb.tables import SIZES as SIZES_OF_TABLES
from lb.tables import Tables, in_kernel
from maglev import Backend, build, fill, prepare
from maglev.measure import disruption, shares

SIZES = (16381, 65537)
COUNTS = (10, 100, 1000, 4096)
BUILDS = 101
CHANGES = 5
GOAL = {16381: 0.25, 65537: 1.0}
PUBLISH_GOAL = 0.2


def backends(first: int, last: int, weight: Callable[[int], int]) -> list[Backend]:
    """Named as a cluster's endpoints are."""
    return [Backend(f"10.0.{n >> 8}.{n & 255}:8080/TCP", weight(n), n) for n in range(first, last)]


def milliseconds(work: Callable[[int], object]) -> float:
    """The median time of one call; the argument counts the calls."""
    times = []
    for seed in range(BUILDS):
        start = perf_counter()
        work(seed)
        times.append(perf_counter() - start)
    return median(times) * 1e3


def build_row(size: int, count: int, name: str, weight: Callable[[int], int]) -> dict[str, Value]:
    """Build times of one size and set."""
    given = backends(0, count, weight)
    prepared = [prepare(given, seed) for seed in range(BUILDS)]
    slots = array("I", [0]) * size
    table = build(given, size=size, seed=0)
    return {
        "slots": size,
        "backends": count,
        "weights": name,
        "cold ms": milliseconds(lambda seed: build(given, size=size, seed=seed)),
        "warm ms": milliseconds(lambda seed: fill(slots, prepared[seed])),
        "goal ms": GOAL[size],
        "max/fair": max(row.ratio for row in shares(table, {b.number: b.weight for b in given})),
    }


def change_row(size: int, count: int, gone: int, new: int) -> dict[str, Value]:
    """Slots that move between staying backends, mean of some seeds."""
    results = []
    for seed in range(CHANGES):
        before = build(backends(0, count, lambda _: 1), size=size, seed=seed)
        after = build(backends(gone, count + new, lambda _: 1), size=size, seed=seed)
        results.append(disruption(before, after))
    return {
        "slots": size,
        "backends": count,
        "gone": gone,
        "new": new,
        "taken by new %": 100 * sum(d.taken_share for d in results) / len(results),
        "shuffled %": 100 * sum(d.shuffled_share for d in results) / len(results),
    }


def publish_row(tables: Tables, size: int, count: int) -> dict[str, Value]:
    """What it takes until packets go by a new table of a service, as the agent does it."""
    rings = Rings(tables, grace=0.0, limit=size)
    members = [Member(parse(f"10.0.{n >> 8}.{n & 255}"), 8080, 1, n) for n in range(count)]
    whole, word = [], 0
    for turn in range(BUILDS):
        start = perf_counter()
        word = rings.switch(1, word, members, float(turn))
        whole.append(perf_counter() - start)
    finished = slots_of(members, rings.size([1] * count))
    places = word >> 33, (word >> 33) + len(finished) // 8

    def publish(turn: int) -> None:
        place = places[turn % 2]
        tables.rings.write(place, finished)
        tables.services.store_word(1, RING, place << 33 | size)

    return {
        "slots": len(finished) // 4,
        "backends": count,
        "published ms": milliseconds(publish),
        "goal ms": PUBLISH_GOAL,
        "built and published ms": median(whole) * 1e3,
    }


@contextmanager
def kernel_tables() -> Iterator[Tables]:
    """The agent's tables, in a folder of their own on the bpffs."""
    mount(BPFFS)
    folder = Path(tempfile.mkdtemp(prefix="tidegate-maglev-", dir=BPFFS))
    try:
        pins = Pins(folder)
        pins.make(SIZES_OF_TABLES)
        yield in_kernel(pins)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Measures and reports."""
    with kernel_tables() as tables:
        published = [publish_row(tables, size, count) for size in SIZES for count in (100, 1000)]
    report("maglev-publish", published, list(published[0]))
    mixes = (("1", lambda _: 1), ("1..10", lambda n: n * 7 % 10 + 1))
    times = [
        build_row(size, count, name, weight)
        for size in SIZES
        for count in COUNTS
        for name, weight in mixes
    ]
    report("maglev-build", times, list(times[0]))
    moves = [
        change_row(size, count, gone, new)
        for size in (*SIZES, 131071, 655373)
        for count in (10, 100, 1000)
        for gone, new in dict.fromkeys(((1, 0), (count // 10, 0), (count // 10, count // 10)))
    ]
    report("maglev-disruption", moves, list(moves[0]))


if __name__ == "__main__":
    main()
