"""Reserved ports: ours come and go, everybody else's stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.reserved import PORTS, added, ports_of, release, removed, reserve, shared, text_of

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
    """Adding adds our range and loses nothing; removing leaves exactly what was there before."""
    text = text_of(ports)
    assert ports_of(added(text)) == ports | set(PORTS)
    assert removed(added(text), shared(text)) == text


@pytest.mark.parametrize(
    ("before", "during"),
    [
        ("\n", "49152-65535\n"),
        ("8080,9148-9150\n", "8080,9148-9150,49152-65535\n"),
        ("49000-49151\n", "49000-65535\n"),
        ("50000,60000-60010\n", "49152-65535\n"),
        ("1024-65535\n", "1024-65535\n"),
    ],
)
def test_in_a_file(tmp_path: Path, before: str, during: str) -> None:
    """What the setting holds before, during and after, also when the agent starts again."""
    setting = tmp_path / "ports"
    setting.write_text(before)
    for _ in range(2):
        assert (reserve(tmp_path, setting), setting.read_text()) == ("", during)
    assert release(tmp_path, setting) == (before != during)
    assert setting.read_text() == before
    assert list(tmp_path.iterdir()) == [setting]


def test_what_others_reserve_meanwhile_stays(tmp_path: Path) -> None:
    """Ports beside our range; and a setting that was written anew is remembered anew."""
    setting = tmp_path / "ports"
    setting.write_text("50000\n")
    reserve(tmp_path, setting)
    setting.write_text("9000,60000\n")
    reserve(tmp_path, setting)
    setting.write_text("8000," + setting.read_text())
    release(tmp_path, setting)
    assert setting.read_text() == "8000,9000,60000\n"


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A line with the ports, and no error."""
    assert "49152-65535" in reserve(tmp_path, tmp_path / "none" / "ports")
