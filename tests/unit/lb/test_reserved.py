"""Reserved ports: ours come and go, everybody else's stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.reserved import PORTS, added, ports_of, release, removed, reserve, text_of

SETS = st.sets(st.one_of(st.integers(1, 65535), st.integers(49100, 49200)), max_size=60)


@given(SETS)
def test_text_and_back(ports: set[int]) -> None:
    """A set of ports is the same after a way through text."""
    assert ports_of(text_of(ports)) == ports


@given(SETS)
def test_runs_are_as_long_as_can_be(ports: set[int]) -> None:
    """As many runs as there are ports without one before them."""
    runs = [part for part in text_of(ports).split(",") if part]
    assert len(runs) == len([port for port in ports if port - 1 not in ports])


@given(SETS)
def test_ours_come_and_go(ports: set[int]) -> None:
    """Adding adds our range and loses nothing; removing leaves exactly the others' ports."""
    assert ports_of(added(text_of(ports))) == ports | set(PORTS)
    assert ports_of(removed(added(text_of(ports)))) == ports - set(PORTS)


@pytest.mark.parametrize(
    ("before", "during", "after"),
    [
        ("\n", "49152-65535\n", "\n"),
        ("8080,9148-9150\n", "8080,9148-9150,49152-65535\n", "8080,9148-9150\n"),
        ("49000-49151\n", "49000-65535\n", "49000-49151\n"),
    ],
)
def test_in_a_file(tmp_path: Path, before: str, during: str, after: str) -> None:
    """What the setting holds before, during and after."""
    setting = tmp_path / "ports"
    setting.write_text(before)
    assert (reserve(setting), setting.read_text()) == ("", during)
    assert (release(setting), setting.read_text()) == (True, after)
    assert (release(setting), setting.read_text()) == (False, after)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A line with the ports, and no error."""
    assert "49152-65535" in reserve(tmp_path / "none" / "ports")
