"""Every record comes back as it went, and is as long as C says."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import layout

RECORDS = [
    one
    for one in vars(layout).values()
    if isinstance(one, type) and issubclass(one, msgspec.Struct) and one is not msgspec.Struct
]
BITS = {"B": 8, "H": 16, "I": 32, "Q": 64}


def values(record: type) -> st.SearchStrategy[list[Any]]:
    """Values for each field, by the codes of its layout."""
    codes = [code for code in _codes(record.LAYOUT.format) if not code.endswith("x")]
    fields = [one.name for one in record.FIELDS]
    kinds = [record.__annotations__[name] for name in fields]
    zero = record.unpack(bytes(record.SIZE))
    return st.tuples(*map(_values, codes, kinds, [getattr(zero, name) for name in fields])).map(
        list
    )


def _values(code: str, kind: str, zero: Any) -> st.SearchStrategy[Any]:
    if kind == "int":
        return st.integers(0, (1 << (16 if code == "2s" else BITS[code])) - 1)
    size = int(code[:-1])
    if kind == "bytes":
        return st.binary(min_size=size, max_size=size)
    bits = 8 * size // len(zero)
    return st.tuples(*[st.integers(0, (1 << bits) - 1)] * len(zero))


def _codes(text: str) -> list[str]:
    codes, number = [], ""
    for char in text.lstrip("<"):
        if char.isdigit():
            number += char
        else:
            codes.append(number + char)
            number = ""
    return codes


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.__name__)
@given(data=st.data())
def test_records_round_trip(record: Any, data: st.DataObject) -> None:
    """Packed and unpacked is the same, in as many bytes as C has."""
    drawn = data.draw(values(record))
    one = record(*drawn)
    raw = one.pack()
    assert len(raw) == record.SIZE == record.LAYOUT.size
    assert record.unpack(raw) == one
    assert record.unpack(raw).pack() == raw


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.__name__)
def test_another_size_is_refused(record: Any) -> None:
    """A record that is a byte short or long is no record."""
    for size in (record.SIZE - 1, record.SIZE + 1):
        with pytest.raises(struct.error):
            record.unpack(bytes(size))


def test_a_key_by_hand() -> None:
    """Ports are in network order, IPv4 is mapped, the rest is bytes."""
    key = layout.FrontendKey(bytes(10) + b"\xff\xff" + bytes([10, 96, 0, 10]), 80, 6, 0)
    assert key.pack().hex() == "00000000000000000000ffff0a60000a00500600"


def test_words_of_a_view_are_aligned() -> None:
    """What programs read while it is written lies on a boundary of 8 bytes."""
    assert layout.Service.SIZE % 8 == layout.Backend.SIZE % 8 == 0
    assert layout.LineOfSlots.SIZE == 4 * layout.Line.SLOTS == 64


@pytest.mark.parametrize("name", layout.TABLES)
def test_tables_have_a_digest(name: str) -> None:
    """Each table's layout has a name of its own, so that a new one never opens an old map."""
    table = layout.TABLES[name]
    assert len(table.leaf.DIGEST) == 8  # type: ignore[attr-defined]
