"""Connections that were there before us: written down, and taken out when they are over."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import Ends
from bpf.maps import MemoryHash
from lb import tracked
from lb.address import parse
from lb.tracked import Tracked

FRONTEND = parse("203.0.113.9")
FOUR = [Ends(parse("192.0.2.1"), FRONTEND, 40000 + number, 80).pack() for number in range(4)]


class Kernel(Tracked):
    """What connection tracking says when it is asked, each time the next; None: nothing."""

    def __init__(self, *said: set[bytes] | None, room: int = 16, is_first: bool = True) -> None:
        self.table = MemoryHash(room)
        super().__init__(self.table, is_first=is_first)
        self._said: Iterator[set[bytes] | None] = iter(said)

    def _open(self) -> set[bytes] | None:
        return next(self._said)

    @property
    def keys(self) -> set[bytes]:
        """What the programs see."""
        return {key for key, _ in self.table.items()}


SETS = st.sets(st.sampled_from(FOUR))


@given(before=SETS, meanwhile=SETS, later=st.lists(st.one_of(SETS, st.none()), max_size=4))
def test_what_was_open_is_known_until_it_is_over(
    before: set[bytes], meanwhile: set[bytes], later: list[set[bytes] | None]
) -> None:
    """Before programs come, and what began meanwhile; what cannot be read takes nothing away."""
    kernel = Kernel(before, meanwhile, *later)
    with kernel.learning():
        assert kernel.keys == before
    left = before | meanwhile
    assert kernel.keys == left
    for said in later:
        left = left if said is None else left & said
        assert kernel.forget() == len(left)
        assert kernel.keys == left
        if not left:
            break


def test_an_agent_that_has_flows_learns_nothing() -> None:
    """What began through the agent before it is not connection tracking's."""
    kernel = Kernel(is_first=False)
    with kernel.learning():
        pass
    assert not kernel.keys


def test_too_many_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """As many as fit, and a line for the rest."""
    kernel = Kernel(set(FOUR), set(FOUR), room=3)
    with caplog.at_level(logging.WARNING), kernel.learning():
        assert len(kernel.keys) == 3
    assert "4 open connections from outside, of which 3 fit" in caplog.text


def test_without_connection_tracking_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """To ask would load the kernel's module."""
    monkeypatch.setattr(tracked, "_COUNT", tracked.Path(str(tmp_path)) / "none")
    table = MemoryHash(3)
    with Tracked(table, is_first=True).learning():
        pass
    assert not list(table.items())
