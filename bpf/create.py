"""Makes a table of `layout.py` in the kernel, without the compiler. Not for pins, nor for entries.

Socket storage is the one kind that the kernel wants types for (BTF, Documentation/bpf/btf.rst):
an integer as key, and a value of the right size.
"""

from __future__ import annotations

import mmap
import os
import struct

from bpf import libbpf
from bpf.layout import TABLES
from bpf.libbpf import MapKind

_KINDS = {
    "hash": 1, "array": 2, "percpu_hash": 5, "percpu_array": 6, "lru_hash": 9,
    "lru_percpu_hash": 10, "lpm_trie": 11, "devmap": 14, "sk_storage": 24,
    "ringbuf": 27,
}  # fmt: skip
"""enum bpf_map_type by bcc's words."""
_FLAGS = {"0": 0, "BPF_F_NO_PREALLOC": 1, "BPF_F_MMAPABLE": 1 << 10}
_PROG_ARRAY, _TAILS = 3, 16
_INT, _STRUCT = 1 << 24, 4 << 24
_SIGNED_32 = 1 << 24 | 32
_MAGIC = 0xEB9F


def create(name: str, entries: int) -> int:
    """A descriptor of a new, empty table with room for so many. Raises OSError."""
    table = TABLES[name]
    key_size = 4 if table.key is None else table.key.SIZE
    made_of = MapKind(_KINDS[table.kind], _FLAGS[table.flags], key_size, table.leaf.SIZE)
    if table.kind == "ringbuf":  # entries are octets: whole pages, a power of two
        octets = 1 << max(mmap.PAGESIZE - 1, entries - 1).bit_length()
        return libbpf.create_map(name, MapKind(_KINDS[table.kind], 0, 0, 0), octets)
    if table.kind != "sk_storage":
        return libbpf.create_map(name, made_of, entries)
    types = libbpf.load_btf(_storage_types(table.leaf.SIZE))
    try:
        return libbpf.create_map(name, made_of, 0, btf=types)
    finally:
        os.close(types)


def create_tails() -> int:
    """A descriptor of a new table of tail calls, with room to spare. Raises OSError."""
    return libbpf.create_map("tails", MapKind(_PROG_ARRAY, 0, 4, 4), _TAILS)


def _storage_types(size: int) -> bytes:
    """BTF: type 1 is `int`, type 2 `struct value`, of which nobody needs the fields."""
    texts = b"\0int\0value\0"
    types = struct.pack("<IIII", 1, _INT, 4, _SIGNED_32) + struct.pack("<III", 5, _STRUCT, size)
    header = struct.pack("<HBBIIIII", _MAGIC, 1, 0, 24, 0, len(types), len(types), len(texts))
    return header + types + texts
