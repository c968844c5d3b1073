"""The joined text: every header once, and every line where a developer looks for it."""

from __future__ import annotations

import re

import pytest

from bpf.source import HERE, joined

SOURCES = sorted(path.name for path in HERE.glob("*.c"))
OURS = re.compile(r'^#include "', re.MULTILINE)


@pytest.mark.parametrize("name", SOURCES)
def test_each_header_is_there_once(name: str) -> None:
    """No include of ours is left, and no guard is defined twice."""
    text = joined(name)
    assert not OURS.search(text)
    guards = re.findall(r"^#define (TIDEGATE_\w+_H)$", text, re.MULTILINE)
    assert len(guards) == len(set(guards)) > 1


@pytest.mark.parametrize("name", SOURCES)
def test_markers_tell_the_truth(name: str) -> None:
    """Each line of the joined text is the line of the file that the marker before it names."""
    where, number = "", 0
    for line in joined(name).splitlines():
        marker = re.fullmatch(r'#line (\d+) "bpf/([\w.]+)"', line)
        if marker:
            where, number = marker[2], int(marker[1])
            continue
        original = (HERE / where).read_text().splitlines()[number - 1]
        assert line == original or (line == "" and original.startswith('#include "'))
        number += 1
