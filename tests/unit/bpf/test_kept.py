"""Whatever is done to a table, one round later it holds what it should and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.kept import Elements, differences, key_of, put_back
from bpf.maps import Hash, MemoryArray, MemoryHash

ENTRIES = st.dictionaries(st.integers(0, 31), st.integers(1, 9))


def packed(entries: dict[int, int]) -> dict[bytes, bytes]:
    """As keys and values of 4 and 8 bytes."""
    return {key_of(key): value.to_bytes(8, "little") for key, value in entries.items()}


def name(key: bytes) -> str:
    """An entry's."""
    return f"entry {int.from_bytes(key, 'little')}"


@given(ENTRIES, ENTRIES, st.booleans())
def test_all_is_put_back(wanted: dict[int, int], there: dict[int, int], is_array: bool) -> None:  # noqa: FBT001
    """As many lines as entries differ, each with its name; then none."""
    table: Hash = Elements(MemoryArray(32, 8)) if is_array else MemoryHash(32)
    table.put(packed(there))
    keys = wanted.keys() | there.keys()
    wrong = {key for key in keys if wanted.get(key) != there.get(key)}
    found = differences(table, packed(wanted), name)
    assert {int(line.split()[1]) for line in found} == wrong
    lines = [line for line in put_back(table, packed(wanted), name) if line]
    assert {int(line.split(",")[0].split()[1]) for line in lines} == wrong
    assert len(lines) == len(wrong)
    assert dict(table.items()) == packed(wanted)
    assert differences(table, packed(wanted), name) == []
    assert [line for line in put_back(table, packed(wanted), name) if line] == []
