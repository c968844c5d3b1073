"""Our own annotations: what they mean, and what becomes of a wrong one."""

from __future__ import annotations

from enum import StrEnum
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import parse
from lb.model import HEAVIEST, Algorithm, Dispatch, Key, Kind, Way
from lb.sources.annotations import ALGORITHM, WEIGHT, weight, weights, word
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
    assert word(Algorithm, ALGORITHM, {ALGORITHM: text}, notes()) is wanted


@pytest.mark.parametrize("words", [Algorithm, Way, Dispatch])
@pytest.mark.parametrize("text", ["", " ", "-", "Maglev", "maglev,random", "fastest" * 100])
def test_no_word_of_ours(words: type[StrEnum], text: str) -> None:
    """Something else is refused, an empty text too, and the node's own holds."""
    said = notes()
    assert word(words, "x", {"x": text}, said) is None
    (one,) = said.all()
    assert one.wrong
    assert one.reason.startswith("annotation x: ")
    assert one.reason.endswith(f" is not {' or '.join(words)}")


def test_nothing_said() -> None:
    """Without annotations there is nothing to refuse."""
    said = notes()
    assert word(Algorithm, ALGORITHM, {}, said) is None
    assert word(Algorithm, ALGORITHM, {ALGORITHM: None}, said) is None
    assert (weights({}, said), weights({WEIGHT: ""}, said), weight(None, said)) == ({}, {}, 0)
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


@pytest.mark.parametrize(("text", "wanted"), [("1", 1), (" 3 ", 3), ("100", 100), ("007", 7)])
def test_a_pods_own_weight(text: str, wanted: int) -> None:
    """A number within the bounds of the list."""
    said = notes()
    assert (weight(text, said), said.all()) == (wanted, ())


@pytest.mark.parametrize("text", ["", "0", "101", "-1", "1.5", "٣", "web-0=3", "9" * 5000])
def test_no_weight_of_a_pod(text: str) -> None:
    """Anything else is refused, and it has none."""
    said = notes()
    assert weight(text, said) == 0
    (one,) = said.all()
    assert one.reason.startswith("annotation tidegate.io/weight: ")
    assert one.reason.endswith(" is not a weight of 1 to 100")


@given(st.text(max_size=40) | st.integers(-1, 200).map(str))
def test_the_list_and_the_pod_agree(text: str) -> None:
    """One rule for what is a weight, wherever it is written."""
    by_pod, by_list = notes(), notes()
    found = weight(text, by_pod)
    if not set(text) & set(" ,=") and text.split() == [text]:
        assert weights({WEIGHT: f"web-0={text}"}, by_list) == (
            {crc32(b"web-0"): found} if found else {}
        )
    assert bool(found) != bool(by_pod.all())


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Whatever is written there: weights within their bounds, or a reason."""
    said = notes()
    found = weights({WEIGHT: text}, said)
    assert all(1 <= weight <= HEAVIEST for weight in found.values())
    assert not (found and said.all())
