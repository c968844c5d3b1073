"""Tables of the kernel as the agent uses them: hash-like ones by key, arrays by plain stores.

Two small protocols, each with a kernel form and a form in memory (tests, `plan`). Keys and
values are bytes: records are packed once, by whoever knows their type (`bpf.layout`).
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol
from weakref import finalize

from bpf import libbpf


class Hash(Protocol):
    """A table by key. `capacity` is its size in entries."""

    capacity: int

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Writes all entries. Raises OSError; some may then be written, in the given order."""

    def remove(self, keys: Collection[bytes]) -> None:
        """Removes the keys that are there. Raises OSError."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, in no order."""

    def get(self, key: bytes) -> bytes | None:
        """One value; None: no such key. Raises OSError."""

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, a few at a time: what others write meanwhile may come twice, or not."""


class Array(Protocol):
    """A table by index, every element there from the start and zero. `size`: bytes of one."""

    capacity: int
    size: int

    def write(self, index: int, data: bytes) -> None:
        """Stores whole elements from `index` on. Raises IndexError beyond the end."""

    def store_word(self, index: int, offset: int, value: int) -> None:
        """One aligned 64-bit store into an element: seen whole or not at all."""

    def read(self, index: int, count: int = 1) -> bytes:
        """`count` elements from `index` on."""


class KernelHash:
    """A pinned hash, LRU hash or LPM trie."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        finalize(self, libbpf.close, fd)
        self._info = libbpf.map_info(fd)
        self.capacity = self._info.max_entries

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        keys, values = b"".join(entries), b"".join(entries.values())
        if len(entries) > 1 and libbpf.update_batch(self._fd, keys, values, len(entries)):
            return
        for key, value in entries.items():
            libbpf.update(self._fd, key, value)

    def remove(self, keys: Collection[bytes]) -> None:
        for key in keys:
            libbpf.delete(self._fd, key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from list(libbpf.each_batch(self._fd, self._info))
        except OSError:  # a kernel without batches for this kind of map
            yield from libbpf.each(self._fd, self._info, self._info.value_size)

    def count(self) -> int:
        """How many entries there are, without looking at them: 0.3 µs each, in the kernel.

        Raises OSError where batches do not work.
        """
        found = libbpf.batches(self._fd, self._info, at_once=256)
        return sum(len(keys) for keys, _ in found) // self._info.key_size

    def get(self, key: bytes) -> bytes | None:
        return libbpf.lookup(self._fd, key, self._info.value_size)

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from libbpf.each_batch(self._fd, self._info, at_once=256)
        except OSError:
            yield from libbpf.each(self._fd, self._info, self._info.value_size)


class KernelArray:
    """A pinned mmap-able array. Elements lie `size` bytes apart, a multiple of 8."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._release = finalize(self, libbpf.close, fd)
        info = libbpf.map_info(fd)
        self.capacity = info.max_entries
        self.size = -(-info.value_size // 8) * 8

    @cached_property
    def _memory(self) -> memoryview:
        """Mapped when it is first needed: all its pages count as this process's from then on."""
        length = -(-self.capacity * self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = memoryview(mmap.mmap(self._fd, length))
        self._release()  # the mapping keeps the map
        return memory

    @cached_property
    def _words(self) -> memoryview:
        return self._memory.cast("Q")

    def write(self, index: int, data: bytes) -> None:
        self._check(index, -(-len(data) // self.size))
        self._memory[index * self.size : index * self.size + len(data)] = data

    def store_word(self, index: int, offset: int, value: int) -> None:
        self._check(index, 1)
        self._words[(index * self.size + offset) // 8] = value

    def read(self, index: int, count: int = 1) -> bytes:
        self._check(index, count)
        return bytes(self._memory[index * self.size : (index + count) * self.size])

    def _check(self, index: int, count: int) -> None:
        if index < 0 or index + count > self.capacity:
            raise IndexError(f"{index} + {count} is beyond {self.capacity}")


class MemoryHash:
    """The same in memory."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: dict[bytes, bytes] = {}

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            if key not in self.entries and len(self.entries) >= self.capacity:
                raise OSError(7, "update: Argument list too long")  # E2BIG, as the kernel says it
            self.entries[key] = value

    def remove(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self.entries.pop(key, None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self.entries.items())

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        return self.items()


class MemoryArray:
    """The same in memory."""

    def __init__(self, capacity: int, size: int) -> None:
        self.capacity, self.size = capacity, -(-size // 8) * 8
        self._memory = bytearray(self.capacity * self.size)

    def write(self, index: int, data: bytes) -> None:
        self._check(index, -(-len(data) // self.size))
        self._memory[index * self.size : index * self.size + len(data)] = data

    def store_word(self, index: int, offset: int, value: int) -> None:
        self._check(index, 1)
        start = index * self.size + offset
        self._memory[start : start + 8] = value.to_bytes(8, "little")

    def read(self, index: int, count: int = 1) -> bytes:
        self._check(index, count)
        return bytes(self._memory[index * self.size : (index + count) * self.size])

    def _check(self, index: int, count: int) -> None:
        if index < 0 or index + count > self.capacity:
            raise IndexError(f"{index} + {count} is beyond {self.capacity}")


class PerCpu(Protocol):
    """A table by index whose elements are 64-bit counters, one set for each CPU."""

    def totals(self, index: int) -> tuple[int, ...]:
        """The counters of an element, each summed over all CPUs."""

    def clear(self, index: int) -> None:
        """All counters of an element are 0 from now on. Raises OSError."""


class KernelPerCpu:
    """A pinned per-CPU array."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._release = finalize(self, libbpf.close, fd)
        info = libbpf.map_info(fd)
        self.capacity = info.max_entries
        self._words, self._cpus = -(-info.value_size // 8), libbpf.cpus()

    def totals(self, index: int) -> tuple[int, ...]:
        size = 8 * self._words * self._cpus
        raw = libbpf.lookup(self._fd, index.to_bytes(4, "little"), size) or bytes(size)
        words = memoryview(raw).cast("Q")
        return tuple([sum(words[first :: self._words]) for first in range(self._words)])

    def clear(self, index: int) -> None:
        libbpf.update(self._fd, index.to_bytes(4, "little"), bytes(8 * self._words * self._cpus))

    def close(self) -> None:
        """The descriptor goes; the table stays."""
        self._release()


class MemoryPerCpu:
    """The same in memory; `counts` may be set by tests."""

    def __init__(self, words: int) -> None:
        self.counts: dict[int, tuple[int, ...]] = {}
        self._nothing = (0,) * words

    def totals(self, index: int) -> tuple[int, ...]:
        return self.counts.get(index, self._nothing)

    def clear(self, index: int) -> None:
        self.counts.pop(index, None)


def totals(path: Path) -> list[int]:
    """The counters of a per-CPU array of single ones, summed over all CPUs. Raises OSError."""
    table = open_per_cpu(path)
    try:
        return [table.totals(index)[0] for index in range(table.capacity)]
    finally:
        table.close()


def open_hash(path: Path) -> KernelHash:
    """The hash pinned at `path`. Raises OSError."""
    return KernelHash(libbpf.open_pin(str(path)))


def open_array(path: Path) -> KernelArray:
    """The array pinned at `path`. Raises OSError."""
    return KernelArray(libbpf.open_pin(str(path)))


def open_per_cpu(path: Path) -> KernelPerCpu:
    """The per-CPU array pinned at `path`. Raises OSError."""
    return KernelPerCpu(libbpf.open_pin(str(path)))
