"""Our own annotations of a Service: what they mean, and what becomes of a wrong one."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import parse
from lb.model import HEAVIEST, Algorithm, Key, Kind
from lb.sources.annotations import ALGORITHM, WEIGHT, algorithm, weights
from lb.sources.notes import Notes


def notes() -> Notes:
    """Of an object."""
    return Notes(Key(Kind.SERVICE, "default", "web"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("maglev", Algorithm.MAGLEV), ("random", Algorithm.RANDOM), (" random ", Algorithm.RANDOM)],
)
def test_an_algorithm(text: str, wanted: Algorithm) -> None:
    """By its name."""
    assert algorithm({ALGORITHM: text}, notes()) is wanted


@pytest.mark.parametrize("text", ["-", "Maglev", "maglev,random", "fastest" * 100])
def test_no_algorithm(text: str) -> None:
    """Something else is refused, and the node's own holds."""
    said = notes()
    assert algorithm({ALGORITHM: text}, said) is None
    (one,) = said.all()
    assert one.wrong
    assert "is not maglev or random" in one.reason


def test_nothing_said() -> None:
    """Without annotations there is nothing to refuse."""
    said = notes()
    assert (algorithm({}, said), weights({}, said), said.all()) == (None, {}, ())
    assert (algorithm({ALGORITHM: ""}, said), weights({WEIGHT: ""}, said)) == (None, {})
    assert said.all() == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.244.1.5=3", {parse("10.244.1.5"): 3}),
        ("10.244.1.5=3, web-1=2", {parse("10.244.1.5"): 3, crc32(b"web-1"): 2}),
        ("fd00::5=100\nweb-1=1", {parse("fd00::5"): 100, crc32(b"web-1"): 1}),
        (" , ", {}),
    ],
)
def test_weights(text: str, wanted: dict[bytes | int, int]) -> None:
    """By address or pod; commas, spaces and lines between them."""
    said = notes()
    assert weights({WEIGHT: text}, said) == wanted
    assert said.all() == ()


@pytest.mark.parametrize(
    "part", ["web-1", "web-1=", "=3", "web-1=0", "web-1=101", "web-1=1.5", "web-1=-1", "web-1=٣"]
)
def test_wrong_weights(part: str) -> None:
    """One wrong part, and none of them holds."""
    said = notes()
    assert weights({WEIGHT: f"web-0=2,{part}"}, said) == {}
    (one,) = said.all()
    assert "is not ADDRESS=WEIGHT or POD=WEIGHT" in one.reason


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Whatever is written there: weights within their bounds, or a reason."""
    said = notes()
    found = weights({WEIGHT: text}, said)
    assert all(1 <= weight <= HEAVIEST for weight in found.values())
    assert not (found and said.all())
