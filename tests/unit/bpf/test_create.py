"""Tables come from the generated layout alone, just as a compiler would make them."""

from __future__ import annotations

import os

import pytest

from bpf import libbpf
from bpf.create import create
from bpf.layout import TABLES

pytestmark = pytest.mark.bpf


def test_a_ring_buffer_is_whole_pages() -> None:
    """It has neither keys nor values, and its size is rounded up to what the kernel takes."""
    for asked, given in ((1, 4096), (4097, 8192), (262144, 262144)):
        fd = create("events", asked)
        info = libbpf.map_info(fd)
        os.close(fd)
        assert (info.key_size, info.value_size, info.max_entries) == (0, 0, given)


@pytest.mark.parametrize("name", [one for one in TABLES if TABLES[one].kind != "ringbuf"])
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
