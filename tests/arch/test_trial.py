"""`tidegate explain` disturbs nothing: what its programs write, they have for themselves."""

from __future__ import annotations

import re
from pathlib import Path

from bpf.layout import TABLES
from bpf.texts import EXPLAIN
from bpf.trial import PACKETS, WRITTEN

BPF = Path(__file__).parents[2] / "bpf"


def _with_headers(source: str) -> set[str]:
    found, follow = {source}, [source]
    while follow:
        text = (BPF / follow.pop()).read_text()
        new = set(re.findall(r'^#include "([\w.]+)"', text, re.MULTILINE)) - found
        found |= new
        follow += new
    return found


def test_each_table_that_is_written_is_private() -> None:
    """Whatever a header says that it writes, explain writes to a table of its own."""
    written: set[str] = set()
    sources = {EXPLAIN.source, *(text.source for text in PACKETS)}
    for name in set().union(*map(_with_headers, sources)):
        contract = (BPF / name).read_text().partition("*/")[2].partition("*/")[0]
        for said in re.findall(r"(?:Reads and w|W)rites: ([^.]*)\.", contract.replace("\n *", "")):
            written |= TABLES.keys() & set(re.findall(r"\w+", said))
    assert {"flows", "loads", "fragments", "allowances"} <= written
    assert written <= set(WRITTEN)


def test_what_is_private_exists() -> None:
    """A table that is no more would be made for nothing."""
    assert set(WRITTEN) <= TABLES.keys()
