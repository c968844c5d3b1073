"""Rates out of two looks at the counters. Pure: what the rows of `show` said, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]

COUNTED = ("connections_total", "packets", "bytes", "refusals")
"""Fields of rows that only grow."""


LIMITED = ("bytes", "dropped", "delayed")
"""The same of a bandwidth limit."""


class Look(NamedTuple):
    """What the maps said at one time, in seconds of any clock."""

    time: float
    services: list[Row]
    backends: list[Row]
    drops: list[Row]
    limits: Sequence[Row] = ()


class Moving(NamedTuple):
    """Rows with `per_second`: rates by field. The busiest first."""

    services: list[Row]
    backends: list[Row]
    drops: list[Row]
    limits: list[Row]
    """A row a pod and direction."""


def moving(before: Look, after: Look) -> Moving:
    """How fast everything went between two looks.

    What was not there before began at nothing; what counts less than before was begun anew.
    """
    seconds = max(after.time - before.time, 1e-9)
    return Moving(
        _rates(before.services, after.services, _service, seconds),
        _rates(before.backends, after.backends, _backend, seconds),
        _rates(before.drops, after.drops, ("reason",), seconds, fields=("count",)),
        _rates(before.limits, after.limits, ("pod", "direction"), seconds, fields=LIMITED),
    )


_service = ("namespace", "name", "port_name", "protocol")
_backend = (*_service, "address", "port")


def _rates(
    before: Iterable[Row],
    after: Iterable[Row],
    named: tuple[str, ...],
    seconds: float,
    *,
    fields: tuple[str, ...] = COUNTED,
) -> list[Row]:
    old = {tuple(row[name] for name in named): row for row in before}
    rows = []
    for row in after:
        past = old.get(tuple(row[name] for name in named), {})
        rates = {}
        for field in fields:
            now, then = row.get(field, 0), past.get(field, 0)
            rates[field] = (now - then if now >= then else now) / seconds
        rows.append(row | {"per_second": rates})
    return sorted(rows, key=lambda row: [-row["per_second"][field] for field in fields])
