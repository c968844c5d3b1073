"""Tables come from the generated layout alone, just as a compiler would make them."""

from __future__ import annotations

import os

import pytest

from bpf import libbpf
from bpf.create import create
from bpf.layout import TABLES

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_made(name: str) -> None:
    """Its name, and the sizes of its keys and values, are those of the layout."""
    fd = create(name, 64)
    try:
        info = libbpf.map_info(fd)
    finally:
        os.close(fd)
    table = TABLES[name]
    assert info.name == name[:15]
    assert info.key_size == (4 if table.key is None else table.key.SIZE)
    assert info.value_size == table.leaf.SIZE
    assert info.max_entries == (0 if table.kind == "sk_storage" else 64)
