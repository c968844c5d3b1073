"""`check`: can this node run it, and how much memory the tables take when full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpf.layout import TABLES
from bpf.probe import features, kernel
from lb.config import table_sizes

_WORDS = {True: "yes", False: "no", None: "unknown"}


def report(cgroup: Path | None) -> dict[str, Any]:
    """Every feature; `good` if none that is required is known to be missing."""
    found = features(cgroup)
    rows = [
        {
            "name": one.name,
            "there": _WORDS[one.there],
            "required": one.required,
            "since": one.since,
            "without": one.without,
        }
        for one in found
    ]
    good = not any(one.required and one.there is False for one in found)
    sizes = table_sizes({})
    memory = sum(sizes[name] * _entry(name) for name in TABLES)
    return {"kernel": kernel(), "good": good, "features": rows, "memory_bytes": memory}


def _entry(name: str) -> int:
    """Bytes of an entry with the kernel's own overhead: 48 to 80 for what is hashed."""
    table = TABLES[name]
    overhead = 64 if table.kind in ("hash", "lru_hash", "lpm_trie") else 0
    sizes = [getattr(record, "SIZE", 0) for record in (table.key, table.leaf)]
    return sum(sizes) + overhead
