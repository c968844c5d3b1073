"""Reads structs and enums from the BTF of an object file: names, offsets, sizes, byte order.

Format: the kernel's Documentation/bpf/btf.rst. Only what our layouts need (integers, arrays,
structs, enums, typedefs) of little-endian 64-bit ELF, as clang writes it for the bpf target.
Needs no privilege. Not a general BTF library.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

INT, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST = 1, 3, 4, 5, 6, 8, 9, 10
FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64 = 13, 14, 15, 17, 19
_FIXED = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}


@dataclass(frozen=True, slots=True)
class Member:
    """One field: `type_name` as in C, `count` 0 for a scalar, offset and size in bytes."""

    name: str
    type_name: str
    offset: int
    size: int
    count: int = 0


@dataclass(frozen=True, slots=True)
class Struct:
    """One struct, size in bytes."""

    name: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Types:
    """What an object file describes, by name, in the order of the file."""

    structs: dict[str, Struct] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)


def read(elf: bytes) -> Types:
    """All named structs and enums of an object file. Raises KeyError without BTF."""
    table = _Table(section(elf, ".BTF"))
    types = Types()
    for entry in table.entries:
        if entry.kind == STRUCT and entry.name:
            types.structs[entry.name] = Struct(entry.name, entry.number, table.members(entry))
        elif entry.kind == ENUM and entry.name:
            types.enums[entry.name] = table.values(entry)
    return types


def section(elf: bytes, wanted: str) -> bytes:
    """A section of a 64-bit little-endian ELF file. Raises KeyError if it has none."""
    (offset,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, offset + i * size) for i in range(count)]
    names = headers[names_index][4]
    for header in headers:
        if _text(elf, names + header[0]) == wanted:
            return elf[header[4] : header[4] + header[5]]
    raise KeyError(wanted)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(0, start)].decode()


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    name: str
    number: int
    """Size in bytes, or the type it refers to."""
    extra: bytes


class _Table:
    """The type section: entry n is type n."""

    def __init__(self, btf: bytes) -> None:
        header, offset, size, texts = struct.unpack_from("<IIII", btf, 4)
        self._btf, self._texts = btf, header + texts
        self.entries = [_Entry(0, "void", 0, b"")]
        position = header + offset
        while position < header + offset + size:
            name, info, number = struct.unpack_from("<III", btf, position)
            kind = info >> 24 & 31
            length = _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
            extra = btf[position + 12 : position + 12 + length]
            self.entries.append(_Entry(kind, self._name(name), number, extra))
            position += 12 + length

    def _name(self, offset: int) -> str:
        return _text(self._btf, self._texts + offset)

    def members(self, entry: _Entry) -> tuple[Member, ...]:
        return tuple(
            self._member(self._name(name), type_id, bits // 8)
            for name, type_id, bits in struct.iter_unpack("<III", entry.extra)
        )

    def values(self, entry: _Entry) -> dict[str, int]:
        return {self._name(name): value for name, value in struct.iter_unpack("<Ii", entry.extra)}

    def _member(self, name: str, type_id: int, offset: int) -> Member:
        entry = self.entries[type_id]
        if entry.kind != ARRAY:
            return Member(name, entry.name, offset, self._size(type_id))
        element, _, count = struct.unpack("<III", entry.extra)
        size = self._size(element)
        return Member(name, self.entries[element].name, offset, size * count, count)

    def _size(self, type_id: int) -> int:
        entry = self.entries[type_id]
        while entry.kind in (TYPEDEF, VOLATILE, CONST):
            entry = self.entries[entry.number]
        return entry.number
