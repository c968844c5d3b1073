"""Tables whose content somebody has in memory: what differs, and how it is put back.

In steps, so that others may have their turn between them. Not for tables that the data path writes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from bpf.maps import Array, Hash

Named = Callable[[bytes], str]
"""An entry's name for people, by its key."""
_PIECE = 4096


def put_back(table: Hash, wanted: Mapping[bytes, bytes], named: Named) -> Iterator[str]:
    """Make the table hold this and nothing else; `wanted` may change between the steps.

    A line for each entry that was not so, "" for a step without one. Raises OSError.
    """
    for key in list(wanted):
        value = wanted.get(key)
        yield "" if value is None else put_back_one(table, key, value, named(key))
    for key, _ in table.walk():
        if key not in wanted and table.get(key) is not None:
            table.remove([key])
            yield f"{named(key)}, which was not asked for"
        else:
            yield ""


def put_back_one(table: Hash, key: bytes, value: bytes, name: str) -> str:
    """One entry; a line or "". Raises OSError.

    In a trie a wider one that says the same hides that a narrower is not there: no harm.
    """
    there = table.get(key)
    if there == value:
        return ""
    table.put({key: value})
    return f"{name}, which was {'missing' if there is None else 'altered'}"


def differences(table: Hash, wanted: Mapping[bytes, bytes], named: Named) -> list[str]:
    """A line for each entry that is not as wanted; changes nothing. Raises OSError."""
    there = dict(table.items())
    lines = [f"{named(key)} should not be there" for key in there.keys() - wanted.keys()]
    for key, value in wanted.items():
        if there.get(key) != value:
            lines.append(f"{named(key)} is {'altered' if key in there else 'missing'}")
    return sorted(lines)


class Elements:
    """An array as a table by key, its index as 4 bytes; an element of zeros is not there."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.capacity = array.capacity

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """As `Hash` has it."""
        for key, value in entries.items():
            self._array.write(int.from_bytes(key, "little"), value)

    def remove(self, keys: Collection[bytes]) -> None:
        """As `Hash` has it."""
        for key in keys:
            self._array.write(int.from_bytes(key, "little"), bytes(self._array.size))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """As `Hash` has it."""
        size = self._array.size
        for first in range(0, self.capacity, _PIECE):
            piece = self._array.read(first, min(_PIECE, self.capacity - first))
            if piece != bytes(len(piece)):
                for at in range(0, len(piece), size):
                    if (value := piece[at : at + size]) != bytes(size):
                        yield key_of(first + at // size), value

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """As `Hash` has it."""
        return self.items()

    def get(self, key: bytes) -> bytes | None:
        """As `Hash` has it."""
        value = self._array.read(int.from_bytes(key, "little"))
        return value if any(value) else None


def key_of(number: int) -> bytes:
    """The key of an element."""
    return number.to_bytes(4, "little")
