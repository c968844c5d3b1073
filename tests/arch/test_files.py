"""Every file is small, says what it is for, and carries its licence."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"bpf/layout.py"}
PYTHON = sorted(
    str(path.relative_to(ROOT))
    for folder in ("lb", "bpf", "maglev", "bandwidth", "tests", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if path.read_text()
)
C = sorted(
    str(path.relative_to(ROOT))
    for folder in ("bpf", "maglev")
    for path in (ROOT / folder).rglob("*.[ch]")
)


@pytest.mark.parametrize("name", sorted({*PYTHON, *C} - GENERATED))
def test_no_file_is_long(name: str) -> None:
    """400 lines are the limit."""
    assert len((ROOT / name).read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", PYTHON)
def test_every_module_says_what_it_is_for(name: str) -> None:
    """The first thing in a module is prose."""
    assert ast.get_docstring(ast.parse((ROOT / name).read_text()))


@pytest.mark.parametrize("name", C)
def test_every_c_file_carries_its_licence(name: str) -> None:
    """The SPDX line is the first; bpf is GPL-compatible, as the kernel asks."""
    first = (ROOT / name).read_text().partition("\n")[0]
    assert re.search(r"SPDX-License-Identifier: \S+", first)
    if name.startswith("bpf/"):
        assert "GPL-2.0-only" in first
