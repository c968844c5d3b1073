"""`python -m maglev`: builds a table of made-up backends and says how even and how stable it is."""

from __future__ import annotations

import json
from array import array
from statistics import median
from time import perf_counter
from typing import Any

import click

from maglev.measure import Disruption, Share, disruption, shares
from maglev.table import Backend, build

BUILDS = 11


def _backends(first: int, last: int, weights: list[int]) -> list[Backend]:
    return [
        Backend(f"10.0.{n >> 8}.{n & 255}:80/TCP", weights[n % len(weights)], n)
        for n in range(first, last)
    ]


def _timed(backends: list[Backend], size: int, seed: int) -> tuple[array[int], float]:
    times = []
    table = array("I")
    for _ in range(BUILDS):
        start = perf_counter()
        table = build(backends, size=size, seed=seed)
        times.append(perf_counter() - start)
    return table, median(times) * 1e3


def _weights(_context: click.Context, _parameter: click.Parameter, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: write numbers with commas: 1,2,10") from None


def _summary(
    size: int, seed: int, milliseconds: float, rows: list[Share], moved: Disruption
) -> dict[str, Any]:
    return {
        "size": size,
        "seed": seed,
        "backends": len(rows),
        "build_ms": round(milliseconds, 3),
        "max_over_fair": round(max(row.ratio for row in rows), 4),
        "min_over_fair": round(min(row.ratio for row in rows), 4),
        "staying_slots": moved.staying,
        "taken_percent": round(100 * moved.taken_share, 3),
        "shuffled_percent": round(100 * moved.shuffled_share, 3),
    }


@click.command(help="Measure a Maglev table of made-up backends: shares, stability, build time.")
@click.option("--backends", "count", type=click.IntRange(1, 65536), default=100, show_default=True)
@click.option("--size", type=int, default=16381, show_default=True, help="Slots; a prime.")
@click.option(
    "--weights", callback=_weights, default="1", show_default=True, help="Dealt out in turn: 1,2,10"
)
@click.option(
    "--remove",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Then take away the first K.",
)
@click.option(
    "--add", type=click.IntRange(0), default=0, show_default=True, help="And add K new ones."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--rows", type=click.IntRange(0), default=10, show_default=True, help="Backends to list."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def main(  # noqa: PLR0913 -- one argument for each flag
    *,
    count: int,
    size: int,
    weights: list[int],
    remove: int,
    add: int,
    seed: int,
    rows: int,
    output: str,
) -> None:
    """Builds, changes the set of backends, builds again, compares."""
    before = _backends(0, count, weights)
    try:
        table, milliseconds = _timed(before, size, seed)
        after = build(_backends(min(remove, count), count + add, weights), size=size, seed=seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not table:
        raise click.UsageError("every weight is 0: there is no table")
    each = shares(table, {backend.number: backend.weight for backend in before})
    moved = disruption(table, after) if after else Disruption(0, 0, 0)
    summary = _summary(size, seed, milliseconds, each, moved)
    if output == "json":
        listed = [row._asdict() | {"ratio": row.ratio} for row in each]
        click.echo(json.dumps(summary | {"shares": listed}))
        return
    click.echo("backend  weight   slots  of fair")
    for row in each[:rows]:
        click.echo(f"{row.number:7} {row.weight:7} {row.slots:7}  {row.ratio:.4f}")
    for name, value in summary.items():
        click.echo(f"{name.replace('_', ' '):16} {value}")


if __name__ == "__main__":
    main()
