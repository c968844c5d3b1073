"""Looks into single entries of the tables: the backends of a view."""

from __future__ import annotations

from array import array

from bpf.layout import Line, LineOfSlots
from lb.tables import Tables


def listed(tables: Tables, view: int) -> list[int]:
    """The backends that a view's word lists."""
    count, line = view & 0xFFFFFFFF, view >> 32
    if not count:
        return []
    raw = tables.slots.read(line, -(-count // Line.SLOTS))
    return list(array("I", raw[: 4 * count])) if LineOfSlots.SIZE else []
