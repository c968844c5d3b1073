"""Every scenario comes out as its text says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario.play import play

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """What is expected is what comes out; `--update-golden` writes it down."""
    got = play(path.read_text())
    if request.config.getoption("--update-golden"):
        path.write_text(got)
    assert path.read_text() == got
