"""Prints a benchmark's table and keeps it as JSON with the machine it was measured on.

For every program in `bench/`, run as `python -m bench.NAME`: measure, then call `report` once a
table. Not for judging a figure.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

Value = str | int | float


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"


def _command() -> str:
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else [Path(sys.argv[0]).name]
    return " ".join(["python", *program, *sys.argv[1:]])


def machine() -> dict[str, Value]:
    """What a figure depends on: kernel, processor, Python, date, load, commit and command.

    `load` is the mean of the last minute, the benchmark itself included; `note` is what the
    variable BENCH_NOTE says, such as who else was at work.
    """
    return {
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 0,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
        "command": _command(),
        "note": os.environ.get("BENCH_NOTE", ""),
    }


def _text(value: Value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def report(
    name: str,
    rows: Sequence[Mapping[str, Value]],
    columns: Sequence[str],
    *,
    directory: Path = RESULTS,
) -> Path:
    """Prints `columns` of `rows` and writes all of them to `NAME.json`; returns its path.

    Floats are shown with three decimals; the unit belongs into the column's name.
    """
    about = machine()
    table = Table(
        *columns, box=box.SIMPLE, title=name, caption=f"{about['cpu']}, {about['kernel']}"
    )
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    for column, first in zip(table.columns, columns, strict=True):
        number = all(isinstance(row.get(first, 0), int | float) for row in rows)
        column.justify = "right" if number else "left"
    Console(width=max(80, 16 * len(columns)), soft_wrap=True).print(table)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps({"machine": about, "rows": list(rows)}, indent=1) + "\n")
    return path
