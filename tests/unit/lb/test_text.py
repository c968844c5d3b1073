"""Rows as tables of text."""

from __future__ import annotations

import pytest

from lb.text import table


@pytest.mark.parametrize("value", ["[fd00:96::10]:80", ["10.96.0.10:80", "[fd00:96::10]:80"]])
def test_brackets_are_printed(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    """An IPv6 address in brackets is no markup, alone or in a list."""
    table([{"frontend": value}], {"frontend": "FRONTEND"})
    assert "[fd00:96::10]:80" in capsys.readouterr().out
