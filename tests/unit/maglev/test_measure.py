"""Shares and disruption, and the command that prints them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from maglev import Backend, build
from maglev.__main__ import main
from maglev.measure import Disruption, Share, disruption, shares

tables = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def fleet(first: int, last: int) -> list[Backend]:
    """Backends of weight 1."""
    return [Backend(f"10.0.{n >> 8}.{n & 255}:80", 1, n) for n in range(first, last)]


def test_shares() -> None:
    """Slots are counted against the fair ones; weight 0 is fair with none."""
    assert shares([1, 1, 2, 1], {1: 1, 2: 1, 3: 0}) == [
        Share(1, 1, 3, 2.0),
        Share(2, 1, 1, 2.0),
        Share(3, 0, 0, 0.0),
    ]
    assert [row.ratio for row in shares([1, 1, 2, 1], {1: 1, 2: 1, 3: 0})] == [1.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ([1, 2, 3, 3], [1, 2, 3, 3], Disruption(4, 0, 0)),
        ([1, 2, 3, 3], [1, 2, 1, 2], Disruption(2, 0, 0)),
        ([1, 2, 3, 3], [2, 2, 1, 1], Disruption(2, 0, 1)),
        ([1, 1, 2, 2], [1, 3, 2, 3], Disruption(4, 2, 0)),
        ([1], [2], Disruption(0, 0, 0)),
    ],
)
def test_disruption(before: list[int], after: list[int], moved: Disruption) -> None:
    """Slots of departed backends do not count; those of new ones count apart."""
    assert disruption(before, after) == moved


@given(tables)
def test_no_change_moves_nothing(table: list[int]) -> None:
    """A table against itself: all stay."""
    assert disruption(table, table) == Disruption(len(table), 0, 0)


@given(tables, st.randoms())
def test_disruption_adds_up(table: list[int], random) -> None:  # noqa: ANN001
    """Staying slots are those that moved and those that did not."""
    after = random.sample(table, len(table))
    moved = disruption(table, after)
    same = sum(a == b for a, b in zip(table, after, strict=True))
    assert moved == Disruption(len(table), 0, len(table) - same)


def test_tables_of_two_sizes_do_not_compare() -> None:
    """A slot of one size is not a slot of another."""
    with pytest.raises(ValueError, match="argument 2"):
        disruption([1, 2], [1])


@pytest.mark.parametrize(
    ("size", "count", "gone", "new", "percent"),
    [
        (16381, 10, 1, 0, 1.5),
        (16381, 10, 1, 1, 1.5),
        (16381, 100, 1, 0, 2.0),
        (65537, 10, 1, 1, 0.5),
        (65537, 100, 1, 0, 1.0),
        (65537, 100, 10, 10, 1.5),
        (131071, 100, 10, 0, 1.0),
        (131071, 100, 10, 10, 1.0),
    ],
)
def test_a_change_moves_few_others(
    size: int, count: int, gone: int, new: int, percent: float
) -> None:
    """Slots pass between staying backends only by the measured few in a hundred."""
    before = build(fleet(0, count), size=size, seed=1)
    moved = disruption(before, build(fleet(gone, count + new), size=size, seed=1))
    assert 100 * moved.shuffled_share <= percent
    assert moved.taken_share == pytest.approx(new / count, abs=0.02)


def test_command_in_json() -> None:
    """The command's JSON holds the shares and what a change moves."""
    arguments = "--backends 20 --size 2039 --weights 1,3 --remove 2 --add 2 --seed 4 -o json"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["backends"] == len(told["shares"]) == 20
    assert sum(row["slots"] for row in told["shares"]) == told["size"] == 2039
    assert 0 < told["shuffled_percent"] < 10
    assert told["build_ms"] > 0


def test_command_in_text() -> None:
    """The command's table lists backends and ends with the summary."""
    result = CliRunner().invoke(main, ["--backends", "3", "--size", "251", "--rows", "2"])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].split() == ["backend", "weight", "slots", "of", "fair"]
    assert "max over fair" in result.output
    assert len(result.output.splitlines()) == 3 + 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--size 16384", "must be a prime"),
        ("--backends 300 --size 251", "more backends than slots"),
        ("--weights 1,x", "write numbers with commas"),
        ("--weights 70000", "above 65535"),
        ("--weights 0", "every weight is 0"),
        ("--seed -1", "seed -1"),
    ],
)
def test_command_refuses(arguments: str, message: str) -> None:
    """Wrong usage: exit status 2 and the reason, no stack trace."""
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("backends", [10, 20, 30, 40])
def test_a_tenth_replaced_moves_a_hundredth_of_the_others(backends: int) -> None:
    """With 1,600 slots a backend or more, in 48 of 50 clusters, and on average.

    With fewer slots no table can do so well: each backend loses and gains slots by chance, about
    as many as the root of its share, and where shares are even the difference has to be shuffled.
    The two: where one backend's step is a small multiple of another's, one follows the other
    through the table, and a change of the first is felt by the second as well.
    """
    tenth = backends // 10
    moved = []
    for seed in range(50):
        before = build(fleet(0, backends), size=65537, seed=seed)
        after = build(fleet(tenth, backends + tenth), size=65537, seed=seed)
        moved.append(100 * disruption(before, after).shuffled_share)
    assert sum(moved) / len(moved) <= 0.9
    assert sorted(moved)[-3] <= 1.0
