"""Tables in memory and in the kernel behave the same: one suite for both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bpf import libbpf
from bpf.maps import Array, Hash, MemoryArray, MemoryHash, open_array, open_hash

_KINDS = {"hash": (1, 1), "lpm_trie": (11, 1), "array": (2, 1 << 10)}
"""enum bpf_map_type, and flags: BPF_F_NO_PREALLOC, BPF_F_MMAPABLE."""


def created(path: Path, kind: str, key: int, value: int, entries: int) -> Path:
    """A pinned table of the kernel."""

    class Options(libbpf.ctypes.Structure):
        _fields_ = (
            ("size", libbpf.ctypes.c_size_t),
            ("btf_and_inner", libbpf.ctypes.c_uint32 * 5),
            ("map_flags", libbpf.ctypes.c_uint32),
            ("rest", libbpf.ctypes.c_uint32 * 6),
        )

    number, flags = _KINDS[kind]
    options = Options()
    options.size, options.map_flags = libbpf.ctypes.sizeof(options), flags
    fd = libbpf._call(
        "bpf_map_create",
        number,
        b"test",
        key,
        value,
        entries,
        libbpf.ctypes.byref(options),
        what="create",
    )
    libbpf.pin(fd, str(path))
    os.close(fd)
    return path


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.bpf)])
def make_hash(request: pytest.FixtureRequest) -> Callable[[int], Hash]:
    """A hash of 4-byte keys and 8-byte values, of a given capacity."""
    if request.param == "memory":
        return MemoryHash
    folder = request.getfixturevalue("bpffs")
    return lambda capacity: open_hash(created(folder / "hash", "hash", 4, 8, capacity))


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.bpf)])
def make_array(request: pytest.FixtureRequest) -> Callable[[int, int], Array]:
    """An array of a given capacity and element size."""
    if request.param == "memory":
        return MemoryArray
    folder = request.getfixturevalue("bpffs")
    return lambda capacity, size: open_array(created(folder / "array", "array", 4, size, capacity))


def entries(*numbers: int) -> dict[bytes, bytes]:
    """Keys and values that are told by a number."""
    return {n.to_bytes(4, "little"): (n * 7).to_bytes(8, "little") for n in numbers}


def test_a_hash_holds_what_was_put(make_hash: Callable[[int], Hash]) -> None:
    """Put, replace, remove; removing what is not there is nothing."""
    table = make_hash(64)
    assert list(table.items()) == []
    table.put({})
    table.put(entries(*range(50)))
    assert dict(table.items()) == entries(*range(50))
    table.put({(3).to_bytes(4, "little"): bytes(8)})
    table.remove([*entries(*range(10)), b"none"])
    table.remove([b"none"])
    assert dict(table.items()) == entries(*range(10, 50))
    assert table.capacity == 64


def test_a_full_hash_says_so(make_hash: Callable[[int], Hash]) -> None:
    """E2BIG for what does not fit; what is there can still be replaced, and room be used."""
    table = make_hash(4)
    table.put(entries(1, 2, 3, 4))
    with pytest.raises(OSError, match=r"Argument list too long") as caught:
        table.put(entries(5))
    assert caught.value.errno == 7
    table.put(entries(1, 2))
    with pytest.raises(OSError, match=r"Argument list too long"):
        table.put(entries(6, 7))
    table.remove(list(entries(1)))
    table.put(entries(5))
    assert dict(table.items()) == entries(2, 3, 4, 5)


def test_an_array_is_zero_and_whole(make_array: Callable[[int, int], Array]) -> None:
    """Every element is there from the start; writes touch nothing else."""
    table = make_array(10, 16)
    assert (table.capacity, table.size) == (10, 16)
    assert table.read(0, 10) == bytes(160)
    table.write(3, b"a" * 32)
    assert table.read(2, 4) == bytes(16) + b"a" * 32 + bytes(16)


def test_a_word_is_stored_in_place(make_array: Callable[[int, int], Array]) -> None:
    """Little-endian, at its offset, and nowhere else."""
    table = make_array(4, 24)
    table.store_word(2, 8, 0x1122334455667788)
    assert table.read(2) == bytes(8) + bytes.fromhex("8877665544332211") + bytes(8)
    table.store_word(2, 8, (1 << 64) - 1)
    assert table.read(2) == bytes(8) + b"\xff" * 8 + bytes(8)


def test_elements_lie_on_eight_bytes(make_array: Callable[[int, int], Array]) -> None:
    """As the kernel lays them: 12 bytes of value are 16 of stride."""
    table = make_array(4, 12)
    assert table.size == 16
    table.write(1, b"b" * 12)
    assert table.read(1) == b"b" * 12 + bytes(4)


@pytest.mark.parametrize(("index", "count"), [(4, 1), (3, 2), (-1, 1), (0, 5)])
def test_beyond_the_end_is_an_error(
    make_array: Callable[[int, int], Array], index: int, count: int
) -> None:
    """Neither reads nor writes leave the array."""
    table = make_array(4, 8)
    with pytest.raises(IndexError):
        table.read(index, count)
    with pytest.raises(IndexError):
        table.write(index, bytes(8 * count))
    with pytest.raises(IndexError):
        table.store_word(4, 0, 1)
    assert table.read(0, 4) == bytes(32)


@pytest.mark.bpf
def test_a_trie_is_read_in_full(bpffs: Path) -> None:
    """Positions in a trie are whole keys: reading must not write beyond its buffers."""
    table = open_hash(created(bpffs / "trie", "lpm_trie", 260, 4, 10000))
    wanted = {
        (2048).to_bytes(4, "little") + n.to_bytes(4, "little") + bytes(252): bytes(4)
        for n in range(9000)
    }
    table.put(wanted)
    assert dict(table.items()) == wanted


@pytest.mark.bpf
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 3000])
def test_entries_are_counted_without_looking(bpffs: Path, count: int) -> None:
    """In batches smaller than the table, whether or not the last one is full."""
    table = open_hash(created(bpffs / "hash", "hash", 4, 8, 4096))
    table.put(entries(*range(count)))
    assert table.count() == count


@pytest.mark.bpf
def test_the_slow_way_reads_the_same(bpffs: Path) -> None:
    """Key by key, where a kernel knows no batches."""
    path = created(bpffs / "hash", "hash", 4, 8, 64)
    open_hash(path).put(entries(*range(20)))
    fd = libbpf.open_pin(str(path))
    assert dict(libbpf.each(fd, libbpf.map_info(fd), 8)) == entries(*range(20))
    libbpf.close(fd)
