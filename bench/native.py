"""Compiles the C beside a benchmark: what is timed there, Python would drown."""

from __future__ import annotations

from pathlib import Path

from tests.bed.process import run

HERE = Path(__file__).parent


def built(name: str, folder: Path) -> Path:
    """The program of `bench/NAME.c`, put into `folder`. Raises BedError."""
    target = folder / name
    source = str(HERE / f"{name}.c")
    run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(target), source], timeout=60)
    return target
