"""The pauses of a reflector whose server fails: longer and longer, spread, and as it asks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import pytest

from lb.sources.kubernetes import SERVICES
from lb.sources.reflector import Answer, Failed, Listener, Reflector, Timing

TIMING = Timing(first_pause=0.4, longest_pause=30.0)


class Broken:
    """A server that fails always, and remembers how often it was asked."""

    def __init__(self, error: Failed) -> None:
        self.error, self.asked = error, 0

    def get(
        self, _path: str, _query: Mapping[str, str], *, patience: float
    ) -> AbstractContextManager[Answer]:
        """Fail."""
        assert patience > 0
        self.asked += 1
        raise self.error


def pauses(error: Failed, tries: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the reflector waits after each try."""
    listener = Listener(lambda _: None, lambda: None, lambda *_: None)
    reflector = Reflector(SERVICES, Broken(error), listener, TIMING)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == tries:
            reflector.stop()

    monkeypatch.setattr(reflector._stop, "wait", wait)
    reflector.run()
    return waited


@pytest.mark.parametrize("code", [0, 429, 500, 503])
def test_pauses_double_up_to_the_longest(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.4, 0.8, ... 30 s, each spread by half, so that a thousand nodes do not ask at once."""
    waited = pauses(Failed("no", code), 12, monkeypatch)
    for number, seconds in enumerate(waited):
        middle = min(30.0, 0.4 * 2**number)
        assert 0.5 * middle <= seconds <= 1.5 * middle
    again = pauses(Failed("no", code), 12, monkeypatch)
    assert waited != again


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(0.0, 0.2, 0.6), (7.0, 7.0, 7.0), (3600.0, 30.0, 30.0)]
)
def test_a_pause_that_the_server_asks_for(
    asked: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After counts where it is longer than our own, up to the longest of all."""
    (waited,) = pauses(Failed("busy", 429, asked), 1, monkeypatch)
    assert least <= waited <= most
