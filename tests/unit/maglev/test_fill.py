"""The native fill: hostile input is refused in one line, and other threads go on."""

from __future__ import annotations

import mmap
import sys
import threading
from array import array
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maglev import Backend, _fill, build, permutation, prepare

ONE = (b"k" * 16, array("I", [1]), array("I", [7]))
TWO = (bytes(range(32)), array("I", [1, 2]), array("I", [7, 8]))


def slots(size: int) -> array[int]:
    """Memory for a table, with a mark in each slot."""
    return array("I", [0xDEAD] * size)


REFUSED = [
    ("empty table", slots(0), *ONE, "a table of 0 slots: must be a prime"),
    ("one slot", slots(1), *ONE, "a table of 1 slots"),
    ("not prime", slots(16383), *ONE, "a table of 16383 slots"),
    ("square of a prime", slots(251 * 251), *ONE, "a table of 63001 slots"),
    ("half a slot", bytearray(253 * 4 + 2), *ONE, "slots: must be aligned items of 4 bytes"),
    ("unaligned", memoryview(bytearray(251 * 4 + 1))[1:], *ONE, "slots: must be aligned"),
    ("read-only", bytes(251 * 4), *ONE, "slots: must be contiguous and writable"),
    ("every second", memoryview(slots(502))[::2], *ONE, "slots: must be contiguous and writable"),
    ("nobody", slots(251), b"", b"", b"", "no backend has a weight above 0"),
    ("weight 0", slots(251), ONE[0], array("I", [0]), ONE[2], "no backend has a weight above 0"),
    ("heavy", slots(251), ONE[0], array("I", [65536]), ONE[2], "a weight is above 65535"),
    ("short key", slots(251), b"k" * 15, *ONE[1:], "keys: must be aligned items of 16 bytes"),
    ("few keys", slots(251), ONE[0], *TWO[1:], "1 keys, 2 weights and 2 numbers"),
    ("few weights", slots(251), TWO[0], ONE[1], TWO[2], "2 keys, 1 weights and 2 numbers"),
    ("few numbers", slots(251), *TWO[:2], ONE[2], "2 keys, 2 weights and 1 numbers"),
    ("twins", slots(251), b"k" * 32, *TWO[1:], "two backends have the same name"),
    (
        "crowd",
        slots(2),
        bytes(range(48)),
        array("I", [1] * 3),
        array("I", [1] * 3),
        "more backends",
    ),
]


@pytest.mark.parametrize(
    ("memory", "keys", "weights", "numbers", "message"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_refused_and_untouched(memory, keys, weights, numbers, message) -> None:  # noqa: ANN001
    """Bad input raises ValueError that says what, and no slot is written."""
    before = bytes(memory)
    with pytest.raises(ValueError, match=message) as caught:
        _fill.fill(memory, keys, weights, numbers)
    assert "\n" not in str(caught.value)
    assert bytes(memory) == before


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("wrong", [None, "text", 3, [1]])
def test_what_is_no_buffer_is_a_type_error(place: int, wrong: object) -> None:
    """Objects without memory are refused in every place."""
    arguments = [slots(251), *ONE]
    arguments[place] = wrong
    with pytest.raises(TypeError):
        _fill.fill(*arguments)


def test_too_few_arguments() -> None:
    """All four are needed."""
    with pytest.raises(TypeError):
        _fill.fill(slots(251))


def test_buffers_are_given_back() -> None:
    """After a call, refused or not, the memory can be resized: no view is kept."""
    for memory in (slots(251), slots(250)):
        keys = bytearray(ONE[0])
        with suppress(ValueError):
            _fill.fill(memory, keys, *ONE[1:])
        memory.append(1)
        keys.append(1)


def test_fills_mapped_memory() -> None:
    """A mapping, as of a kernel array, is filled in place."""
    with mmap.mmap(-1, 4 * 1021) as memory:
        _fill.fill(memory, *TWO)
        assert set(memoryview(memory[:]).cast("I")) == {7, 8}


@given(
    st.binary(max_size=200), st.binary(max_size=100), st.binary(max_size=60), st.binary(max_size=60)
)
def test_any_bytes_fill_or_are_refused(
    memory: bytes, keys: bytes, weights: bytes, numbers: bytes
) -> None:
    """No bytes crash it."""
    target = bytearray(memory)
    try:
        _fill.fill(target, keys, weights, numbers)
    except ValueError:
        assert target == memory


@given(
    st.sampled_from([2, 3, 5, 7, 251]),
    st.lists(
        st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 65535)),
        max_size=9,
        unique_by=lambda row: row[0][:8],
    ),
)
def test_any_keys_and_weights_fill_every_slot(size: int, rows: list[tuple[bytes, int]]) -> None:
    """Any keys and weights that fit give a full table of known numbers."""
    memory = slots(size)
    weights = [weight for _, weight in rows]
    known = {n for n, weight in enumerate(weights) if weight}
    arguments = (
        b"".join(key for key, _ in rows),
        array("I", weights),
        array("I", range(len(rows))),
    )
    if 0 < len(known) <= size:
        _fill.fill(memory, *arguments)
        assert set(memory) == known
    else:
        with pytest.raises(ValueError, match="backend"):
            _fill.fill(memory, *arguments)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range(seed: int) -> None:
    """A seed that murmur3 cannot take is refused, not cut."""
    with pytest.raises(ValueError, match="seed"):
        build([Backend("a", 1, 1)], size=251, seed=seed)


@pytest.mark.parametrize(
    "backend",
    [Backend("a", -1, 1), Backend("a", 2**32, 1), Backend("a", 1, -1), Backend("\ud800", 1, 1)],
)
def test_backends_out_of_range(backend: Backend) -> None:
    """Numbers that do not fit and names that are no text are refused."""
    with pytest.raises(ValueError, match=r"0 to 4294967295|surrogates"):
        prepare([backend], 0)


@pytest.mark.parametrize("size", [-5, 0, 4, 16384])
def test_sizes_that_are_no_prime(size: int) -> None:
    """`build` refuses them like the native code."""
    with pytest.raises(ValueError, match="must be a prime"):
        build([Backend("a", 1, 1)], size=size, seed=0)


def test_keys_are_murmur3() -> None:
    """Keys are the standard 128-bit murmur3 (x64), the first half first, little-endian."""
    assert permutation.keys(["foo"], 7).hex() == "c22e839665760fd131eba79700f01a5c"
    assert permutation.permutation("foo", 251, 7) == (
        0xD10F766596832EC2 % 251,
        0x5C1AF00097A7EB31 % 250 + 1,
    )


def test_other_threads_run_meanwhile() -> None:
    """The interpreter is free while a table is filled.

    With a switch interval beyond the test, a thread gives way only where it releases the lock.
    """
    entered, filled = threading.Semaphore(0), threading.Event()
    prepared = prepare([Backend(f"b{n}", 1, n) for n in range(100)], 0)
    memory = slots(1048573)

    def work() -> None:
        entered.release()
        _fill.fill(memory, *prepared)
        filled.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        worker = threading.Thread(target=work)
        worker.start()
        entered.acquire()
        ran_meanwhile = not filled.is_set()
    finally:
        sys.setswitchinterval(interval)
    worker.join()
    assert ran_meanwhile
    assert 0xDEAD not in memory
