"""Rows as tables for a terminal or a pipe, with headings in capitals as kubectl has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Prints `columns` (field: heading) of the rows; says so if there are none."""
    console = Console(highlight=False, soft_wrap=True)
    if not rows:
        console.print("none")
        return
    if not sys.stdout.isatty():
        console.width = 1 << 12  # a pipe has no edge to fold at
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in columns.values():
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*[_cell(row.get(field)) for field in columns])
    console.print(shown, soft_wrap=False)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return escape("\n".join(map(str, value))) or "-"
        case _:
            return escape(str(value)) or "-"
