"""Tables in memory that check every single store, and may let it fail.

A store is what the kernel does whole: an entry of a hash, or 8 aligned bytes of an array.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from bpf.layout import Backend, BackendState, Line, Service, ServiceFlag
from bpf.maps import Array, Hash
from lb.tables import Tables, in_memory

SIZES = {
    "frontends": 64, "services": 32, "slots": 64, "rings": 8192, "backends": 128, "loads": 128,
    "ranges": 64, "names": 64, "vips": 64,
}  # fmt: skip


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Watch:
    """Counts stores, makes one of them fail, and checks the safe order after each.

    `fail_at`: stores until the failure, None for none; then all fail until it is None again if
    `lasting`. `now` is the clock that resting ids and lines are measured by, in seconds.
    """

    grace: float = 2.0
    now: float = 0.0
    stores: int = 0
    fail_at: int | None = None
    error: BaseException = field(default_factory=lambda: OSError(5, "Input/output error"))
    tables: Tables = field(init=False)
    plain: Tables = field(init=False)
    rested: dict[tuple[str, int], float] = field(default_factory=dict)
    """When a backend, service or line was last seen in use."""

    def before(self) -> None:
        """Raises if this store is the one to fail."""
        if self.fail_at is not None:
            if self.fail_at == 0:
                self.fail_at = None
                raise self.error
            self.fail_at -= 1
        self.stores += 1

    def after(self) -> None:
        """The safe order: no frontend leads nowhere, no view lists a stranger."""
        self.rested |= dict.fromkeys(in_use(self.plain), self.now)

    def reusing(self, name: str, number: int) -> None:
        """A free id or line is about to be filled: it must have rested."""
        assert self.rested.get((name, number), -self.grace) + self.grace <= self.now, (
            f"{name} {number} is given away {self.now - self.rested[name, number]} s after use"
        )

    def forget_rest(self) -> None:
        """After a restart: what rested may be used at once, but not what is in force."""
        self.rested = {}
        self.after()


def in_use(tables: Tables) -> list[tuple[str, int]]:
    """Services, lines and backends that a frontend leads to; asserts that all of them are there."""
    found = []
    backends = memoryview(tables.backends.read(0, tables.backends.capacity)).cast("I")
    for service in {int.from_bytes(value[:4], "little") for _, value in tables.frontends.items()}:
        record = memoryview(tables.services.read(service)).cast("Q")
        assert record[4] & ServiceFlag.USED, f"a frontend leads to the free service {service}"
        found.append(("services", service))
        for view in set(record[:3]):
            count, first = view & 0xFFFFFFFF, view >> 32
            lines = -(-count // Line.SLOTS)
            found += [("slots", first + i) for i in range(lines)]
            for number in memoryview(tables.slots.read(first, lines)).cast("I")[:count]:
                state = backends[8 * number + 4] >> 16 & 0xFF
                assert state != BackendState.FREE, f"{service} lists the free {number}"
                assert backends[8 * number + 6] == service, f"{service} lists {number} of another"
                found.append(("backends", number))
        if ring := record[5]:
            size, first = ring & 0xFFFFFFFF, ring >> 33
            pairs = -(-size // 2)
            found += [("rings", first + i) for i in range(pairs)]
            for number in set(memoryview(tables.rings.read(first, pairs)).cast("I")[:size]):
                state = backends[8 * number + 4] >> 16 & 0xFF
                assert state != BackendState.FREE, f"the ring of {service} leads to free {number}"
                assert backends[8 * number + 6] == service, f"{service} has {number} in its ring"
                found.append(("backends", number))
    return found


class FaultyHash:
    """A hash whose stores are watched."""

    def __init__(self, watch: Watch, inner: Hash) -> None:
        self.capacity = inner.capacity
        self._watch, self._inner = watch, inner

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Entry by entry."""
        for key, value in entries.items():
            self._watch.before()
            self._inner.put({key: value})
            self._watch.after()

    def remove(self, keys: Collection[bytes]) -> None:
        """Key by key."""
        for key in keys:
            self._watch.before()
            self._inner.remove([key])
            self._watch.after()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries."""
        return self._inner.items()

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        return self._inner.get(key)

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries."""
        return self._inner.walk()


class FaultyArray:
    """An array whose stores are watched, 8 bytes at a time."""

    def __init__(self, watch: Watch, inner: Array, name: str) -> None:
        self.capacity, self.size = inner.capacity, inner.size
        self._watch, self._inner, self._name = watch, inner, name

    def write(self, index: int, data: bytes) -> None:
        """Word by word."""
        for start in range(0, len(data), 8):
            word = int.from_bytes(data[start : start + 8], "little")
            self.store_word(index + start // self.size, start % self.size, word)

    def store_word(self, index: int, offset: int, value: int) -> None:
        """One store."""
        self._watch.before()
        raw = self._inner.read(index)
        if int.from_bytes(raw[offset : offset + 8], "little") != value and self._is_free(raw):
            self._watch.reusing(self._name, index)
        self._inner.store_word(index, offset, value)
        self._watch.after()

    def read(self, index: int, count: int = 1) -> bytes:
        """Whole elements."""
        return self._inner.read(index, count)

    def _is_free(self, raw: bytes) -> bool:
        if self._name == "backends":
            return Backend.unpack(raw).state == BackendState.FREE
        if self._name == "services":
            return not Service.unpack(raw).flags & ServiceFlag.USED
        return self._name == "slots"  # a list is never changed in place


class FaultyRings(FaultyArray):
    """Rings are long, and written where nothing points: two stores each, one for each half."""

    def write(self, index: int, data: bytes) -> None:
        """Half by half."""
        middle = len(data) // 16 * 8
        for start, part in ((0, data[:middle]), (middle, data[middle:])):
            self._watch.before()
            for number in range(len(part) // self.size):
                self._watch.reusing(self._name, index + start // self.size + number)
            self._inner.write(index + start // self.size, part)
            self._watch.after()


def watched(sizes: Mapping[str, int] | None = None) -> Watch:
    """A watch with its tables, empty."""
    watch = Watch()
    watch.plain = in_memory({**SIZES, **(sizes or {})})
    plain = watch.plain
    watch.tables = Tables(
        frontends=FaultyHash(watch, plain.frontends),
        services=FaultyArray(watch, plain.services, "services"),
        slots=FaultyArray(watch, plain.slots, "slots"),
        rings=FaultyRings(watch, plain.rings, "rings"),
        backends=FaultyArray(watch, plain.backends, "backends"),
        loads=FaultyArray(watch, plain.loads, "loads"),
        ranges=FaultyHash(watch, plain.ranges),
        names=FaultyHash(watch, plain.names),
        vips=FaultyHash(watch, plain.vips),
    )
    return watch
