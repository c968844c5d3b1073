"""Durations: read and printed as Go does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.errors import BadInput
from lb.kubeproxy.duration import Duration, parse


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("0", 0, "0s"),
        ("0s", 0, "0s"),
        ("30s", 30 * 10**9, "30s"),
        ("1m", 60 * 10**9, "1m0s"),
        ("24h", 86400 * 10**9, "24h0m0s"),
        ("2h22m", 8520 * 10**9, "2h22m0s"),
        ("1.5h", 5400 * 10**9, "1h30m0s"),
        (".5s", 5 * 10**8, "500ms"),
        ("1.25ms", 1_250_000, "1.25ms"),
        ("3us", 3000, "3µs"),
        ("3µs", 3000, "3µs"),
        ("7ns", 7, "7ns"),
        ("-1s", -(10**9), "-1s"),
        ("+1m0.25s", 60_250_000_000, "1m0.25s"),
    ],
)
def test_go_durations(text: str, nanoseconds: int, shown: str) -> None:
    """Text becomes nanoseconds, and text again as Go writes it."""
    assert parse(text) == nanoseconds
    assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "s", "5", "1d", "1 s", "1s ", "--1s", "\u0661s", "999999h999999999h"]
)
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused, a number without a unit among it."""
    with pytest.raises(BadInput, match="is not a duration"):
        parse(text)


@given(st.integers(-(2**62), 2**62))
def test_what_is_printed_is_read_back(nanoseconds: int) -> None:
    """No duration is lost in print."""
    assert parse(str(Duration(nanoseconds))) == nanoseconds
