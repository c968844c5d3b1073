"""Writes to tables by key: a batch where it goes, one by one where it does not, and what failed.

The kernel says "full" in several words; here it is one error that names the flag to raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from bpf.maps import Hash
from lb.errors import MapFull
from lb.tables import FLAGS, PER_ENTRY, Tables, room


def put(tables: Tables, name: str, entries: Mapping[bytes, bytes]) -> None:
    """Write into the table `name`. Raises MapFull where the kernel says so, else OSError."""
    table: Hash = getattr(tables, name)
    try:
        table.put(entries)
    except OSError as error:
        if error.errno in (7, 12, 28):  # E2BIG, ENOMEM, ENOSPC: hash, no preallocation, LPM
            raise full(name, table.capacity) from error
        raise


def put_all(tables: Tables, name: str, entries: Mapping[bytes, bytes]) -> dict[bytes, str]:
    """All at once, or else one by one; why, for each that could not be written."""
    if not entries:
        return {}
    with suppress(MapFull, OSError):
        put(tables, name, entries)
        return {}
    failed = {}
    for key, value in entries.items():
        try:
            put(tables, name, {key: value})
        except (MapFull, OSError) as error:
            failed[key] = str(error)
    return failed


def remove(table: Hash, keys: Iterable[bytes]) -> set[bytes]:
    """One by one, so that one failure keeps no other; those that went."""
    removed = set()
    for key in keys:
        with suppress(OSError):
            table.remove([key])
            removed.add(key)
    return removed


def full(name: str, length: int) -> MapFull:
    """The error of a table of this length that has no room left; counts as its flag does."""
    count = room(name, length) * PER_ENTRY.get(name, 1)
    # The one table without a flag of its own holds names, and grows with services.
    flag = FLAGS.get(name, FLAGS["services"])
    return MapFull(f"map full: {name} holds {count} entries; raise {flag}")
