"""The tables of tail calls as they should be: each build's own, filled with its own programs.

`bpf.module` fills them when it loads a build; this is for what somebody does to them afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bpf import libbpf
from bpf.kept import key_of
from bpf.module import TAILS, Program, Text


def any_tails(text: Text) -> bool:
    """Does the text have programs that others hand over to?"""
    return any(program.tail >= 0 for program in text.programs)


def wrong(text: Text, folder: Path) -> list[Program]:
    """The programs of a build that are not in their place. Raises OSError."""
    return [program for program, _ in _misplaced(text, folder)]


def put_back(text: Text, folder: Path) -> Iterator[str]:
    """A line for each that was not in its place, and is there again. Raises OSError."""
    for program, number in _misplaced(text, folder):
        table, loaded = (libbpf.open_pin(str(folder / one)) for one in (TAILS, program.name))
        try:
            libbpf.update(table, key_of(program.tail), key_of(loaded))
        finally:
            os.close(table)
            os.close(loaded)
        how = "altered" if number else "missing"
        yield f"tail call {program.name} of {text.source}, which was {how}"


def _misplaced(text: Text, folder: Path) -> list[tuple[Program, int]]:
    """With the id of the program that is there instead; 0: none."""
    table = libbpf.open_pin(str(folder / TAILS))
    found = []
    try:
        for program in text.programs:
            if program.tail < 0:
                continue
            loaded = libbpf.open_pin(str(folder / program.name))
            there = libbpf.lookup(table, key_of(program.tail), 4) or b""
            number = int.from_bytes(there, "little")
            if number != libbpf.program_id(loaded):
                found.append((program, number))
            os.close(loaded)
    finally:
        os.close(table)
    return found
