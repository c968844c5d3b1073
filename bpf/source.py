"""Joins a C file and our own headers into one text.

bcc rewrites map calls only in the main text: a header with `services.lookup(&id)` compiles
and is then refused by the kernel. Line markers keep compile errors at `bpf/service.h:42`.
System headers (`<...>`) are left to the compiler.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
_OURS = re.compile(r'^#include "(?P<name>[\w.]+)"$')


def joined(name: str) -> str:
    """The text of `name` (a file beside this one) with each of our headers in place, once."""
    return "\n".join(_lines(name, set())) + "\n"


def _lines(name: str, seen: set[str]) -> list[str]:
    lines = [f'#line 1 "bpf/{name}"']
    for number, line in enumerate((HERE / name).read_text().splitlines(), start=1):
        header = _OURS.match(line)
        if header is None:
            lines.append(line)
        elif header["name"] not in seen:
            seen.add(header["name"])
            lines += [*_lines(header["name"], seen), f'#line {number + 1} "bpf/{name}"']
        else:
            lines.append("")
    return lines
