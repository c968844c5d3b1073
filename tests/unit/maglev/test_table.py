"""Maglev tables: what a set of backends, a size and a seed give."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maglev import Backend, build, fill, permutation, prepare, table_size

FLEET = [Backend("10.0.0.1:80", 1, 1), Backend("[fd00::2]:80", 2, 2), Backend("b:53/UDP", 4, 3)]
GOLDEN = "3x6 1x1 3x2 2x1 3x3 2x2 3x1 2x2 1x1 2x1 3x2 2x1 3x1 2x1 1x1 3x1 1x2 3x1 2x1"


def runs(table: array[int]) -> str:
    """A table as run lengths: `3x2` is two slots of backend 3."""
    return " ".join(f"{number}x{len(list(run))}" for number, run in groupby(table))


def by_the_paper(backends: list[Backend], size: int, seed: int) -> array[int]:
    """Pseudocode 1 of the paper, for equal weights, in the turn order of `permutation`."""
    turns = sorted(backends, key=lambda b: permutation.keys([b.name], seed)[7::-1])
    places = [permutation.permutation(b.name, size, seed) for b in turns]
    walks = [iter([(o + j * s) % size for j in range(size)]) for o, s in places]
    table: list[int | None] = [None] * size
    while True:
        for backend, walk in zip(turns, walks, strict=True):
            if None not in table:
                return array("I", table)
            table[next(slot for slot in walk if table[slot] is None)] = backend.number


fleets = st.dictionaries(
    st.text(max_size=12), st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1)), max_size=40
).map(lambda rows: [Backend(name, *row) for name, row in rows.items()])
seeds = st.integers(0, 2**32 - 1) | st.binary(max_size=20)
sizes = st.sampled_from([41, 251, 509, 1021])


def test_golden_table() -> None:
    """A table never changes from one release to the next: nodes of two versions must agree."""
    assert runs(build(FLEET, size=31, seed=7)) == GOLDEN


@given(st.integers(1, 30), sizes, st.integers(0, 2**32 - 1))
def test_equal_weights_follow_the_paper(count: int, size: int, seed: int) -> None:
    """For equal weights the native code gives what the paper's pseudocode gives, tail and all."""
    fleet = [Backend(f"10.0.0.{n}:80", 3, n) for n in range(count)]
    assert build(fleet, size=size, seed=seed) == by_the_paper(fleet, size, seed)


@given(fleets, sizes, seeds, st.randoms())
def test_order_does_not_matter(fleet: list[Backend], size: int, seed: int | bytes, random) -> None:  # noqa: ANN001
    """A table is a function of the set of backends."""
    shuffled = random.sample(fleet, len(fleet))
    assert build(shuffled, size=size, seed=seed) == build(fleet, size=size, seed=seed)


@given(fleets, sizes, seeds)
def test_every_weight_has_a_slot_and_no_other(
    fleet: list[Backend], size: int, seed: int | bytes
) -> None:
    """A table is full; each backend of weight above 0 has a slot, none of weight 0 has one."""
    numbered = [backend._replace(number=n) for n, backend in enumerate(fleet)]
    table = build(numbered, size=size, seed=seed)
    wanted = {backend.number for backend in numbered if backend.weight}
    assert set(table) == wanted
    assert len(table) == (size if wanted else 0)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_small_weights_are_right(weights: list[int], seed: int) -> None:
    """Weights of 1 to 10, 100 slots a backend: every share is right to 1 % and two slots."""
    size = table_size(len(weights), 16381)
    fleet = [Backend(f"10.0.0.{n}:80", weight, n) for n, weight in enumerate(weights)]
    slots = Counter(build(fleet, size=size, seed=seed))
    for backend in fleet:
        fair = size * backend.weight / sum(weights)
        assert abs(slots[backend.number] - fair) <= 0.01 * fair + 2


@pytest.mark.parametrize("weight", range(1, 11))
def test_one_weight_among_ones(weight: int) -> None:
    """A backend of weight w beside nine of weight 1 gets w times their slots, within 1 %."""
    fleet = [Backend(f"b{n}", weight if n == 4 else 1, n) for n in range(10)]
    slots = Counter(build(fleet, size=16381, seed=1))
    assert slots[4] / slots[0] == pytest.approx(weight, rel=0.01)


def test_scaling_weights_changes_nothing_for_equal_ones() -> None:
    """All weights 1 or all weights 100: the same table."""
    ones = build([Backend(f"b{n}", 1, n) for n in range(9)], size=509, seed=1)
    assert ones == build([Backend(f"b{n}", 100, n) for n in range(9)], size=509, seed=1)


def test_one_backend_has_all() -> None:
    """A single backend holds every slot."""
    assert set(build([Backend("a", 5, 9)], size=65537, seed=0)) == {9}


@pytest.mark.parametrize("fleet", [[], [Backend("a", 0, 1), Backend("b", 0, 2)]])
def test_no_backend_is_an_empty_table(fleet: list[Backend]) -> None:
    """With nobody to choose there is no slot: the caller sees it at once."""
    assert build(fleet, size=251, seed=0) == array("I")


def test_a_weight_of_zero_is_as_good_as_gone() -> None:
    """Weight 0 gives the table of the set without that backend."""
    drained = [FLEET[0], FLEET[1]._replace(weight=0), FLEET[2]]
    assert build(drained, size=251, seed=0) == build([FLEET[0], FLEET[2]], size=251, seed=0)


def test_as_many_backends_as_slots() -> None:
    """With M backends each has one slot, and one more is refused."""
    fleet = [Backend(f"b{n}", n % 9 + 1, n) for n in range(252)]
    assert sorted(build(fleet[:251], size=251, seed=3)) == list(range(251))
    with pytest.raises(ValueError, match="more backends than slots"):
        build(fleet, size=251, seed=3)


@pytest.mark.parametrize("other", [1, b"", b"cluster-a", 2**32 - 1])
def test_the_seed_changes_the_table(other: int | bytes) -> None:
    """Two clusters do not share their tables."""
    fleet = [Backend(f"b{n}", 1, n) for n in range(20)]
    same = build(fleet, size=1021, seed=b"cluster-b")
    changed = build(fleet, size=1021, seed=other)
    assert sum(a != b for a, b in zip(same, changed, strict=True)) > 800


def test_another_process_builds_the_same() -> None:
    """No state of a process, such as the hash seed of strings, gets into a table."""
    code = (
        "import sys; sys.path[:] = eval(sys.argv[1])\n"
        "from maglev import Backend, build\n"
        "fleet = {Backend(f'b{n}', n % 3, n) for n in range(50)}\n"
        "print(build(fleet, size=509, seed=5).tobytes().hex())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, repr(sys.path)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    fleet = [Backend(f"b{n}", n % 3, n) for n in range(50)]
    assert told == {build(fleet, size=509, seed=5).tobytes().hex()}


def test_prepared_backends_fill_any_size() -> None:
    """Names hashed once serve every size, and foreign memory is filled in place."""
    prepared = prepare(FLEET, 7)
    for size in (31, 251, 16381):
        memory = bytearray(4 * size + 8)
        fill(memoryview(memory)[4:-4], prepared)
        assert memory[4:-4] == build(FLEET, size=size, seed=7).tobytes()
        assert memory[:4] == memory[-4:] == bytes(4)


@pytest.mark.parametrize(
    ("count", "limit", "size"),
    [
        (0, 16381, 251),
        (2, 16381, 251),
        (3, 16381, 509),
        (81, 16381, 8191),
        (100, 16381, 16381),
        (5000, 16381, 16381),
        (655, 65537, 65521),
        (656, 65537, 65537),
        (1000, 131071, 131071),
        (1, 127, 127),
    ],
)
def test_table_size(count: int, limit: int, size: int) -> None:
    """100 slots a backend, never above the limit."""
    assert table_size(count, limit) == size


def test_table_sizes_are_prime() -> None:
    """Every size on offer builds: the native code refuses what is no prime."""
    for count in range(1, 1400, 7):
        size = table_size(count, 131071)
        assert len(build([Backend("a", 1, 1)], size=size, seed=0)) == size
