"""Quantities are read as Kubernetes reads them."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth import quantity
from bandwidth.annotations import bits


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10M", 10_000_000),
        ("1.5G", 1_500_000_000),
        ("500k", 500_000),
        ("1e6", 1_000_000),
        ("1E6", 1_000_000),
        ("1.25e3", 1250),
        ("12e-1", 2),
        ("1E", 10**18),
        ("8000000", 8_000_000),
        ("1Ki", 1024),
        ("1.5Mi", 1_572_864),
        ("+3", 3),
        ("-3", -3),
        (".5", 1),
        ("5.", 5),
        ("00012", 12),
        ("1m", 1),
        ("1500m", 2),
        ("2n", 1),
        ("0", 0),
        ("9E99999", (1 << 63) - 1),
        ("9e-99999", 1),
        ("0e99999", 0),
        ("0.0e9999999999999999999999", 0),  # a million digits take a second, and this for ever
        ("-0E9999999999", 0),
        ("9999999P", (1 << 63) - 1),
    ],
)
def test_what_kubernetes_takes(text: str, value: int) -> None:
    """Suffixes by thousands and by 1024, exponents, fractions; rounded up, capped at 2^63 - 1."""
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "M", "10Mbit", "10 M", " 10M", "10M\n", "1e", "1MM", "1e1.5", "1K", "1ki",
     "0x10", "1,5M", "M10", "ten", "\u0661M", "inf", "NaN", "1" * 65, "10M1"],
)  # fmt: skip
def test_what_kubernetes_refuses(text: str) -> None:
    """Anything else is no quantity, and says so."""
    with pytest.raises(ValueError, match=r"^(is no|has no)"):
        quantity.parse(text)


@given(st.text(alphabet="0123456789.eEkKMGTPimun+- ", max_size=12))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Nothing else comes of any text, quickly."""
    with suppress(ValueError):
        assert abs(quantity.parse(text)) < 1 << 63


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.sampled_from(["", "k", "M", "G", "m", "Ki", "Gi"]),
)
def test_a_fraction_is_rounded_up(whole: int, part: int, suffix: str) -> None:
    """As resource.Quantity.Value() does."""
    scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "m": Fraction(1, 1000), "Ki": 1 << 10,
             "Gi": 1 << 30}[suffix]  # fmt: skip
    exact = Fraction(f"{whole}.{part}") * scale
    assert quantity.parse(f"{whole}.{part}{suffix}") == min(ceil(exact), (1 << 63) - 1)


@pytest.mark.parametrize(("text", "rate"), [("1k", 1000), ("1P", 10**15), ("10M", 10**7)])
def test_rates_within_bounds(text: str, rate: int) -> None:
    """1 kbit/s to 1 Pbit/s, both included."""
    assert bits(text) == rate


@pytest.mark.parametrize(
    ("text", "why"),
    [("999", "below 1k"), ("0", "below 1k"), ("-1M", "below 1k"), ("1.1P", "above 1P")],
)
def test_rates_out_of_bounds(text: str, why: str) -> None:
    """Refused with the bound; zero is not "unlimited"."""
    with pytest.raises(ValueError, match=why):
        bits(text)
