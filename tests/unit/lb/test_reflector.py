"""The pauses of a reflector whose server fails: longer and longer, spread, and as it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pytest

from lb.sources.kubernetes import SERVICES, Resource, own_pods
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


def pauses(
    error: Failed,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
    resource: Resource = SERVICES,
    told: Callable[[str], None] = lambda _: None,
) -> list[float]:
    """How long the reflector waits after each try; `told` is called with what its listener is."""
    listener = Listener(
        lambda _: told("changed"), lambda: told("listed"), lambda *_: told("fares"),
        lambda: told("missing"),
    )  # fmt: skip
    reflector = Reflector(resource, Broken(error), listener, TIMING)
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


@pytest.mark.parametrize("code", [403, 404])
def test_a_kind_that_is_not_served_to_us_is_asked_for_rarely(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 5 minutes from one try to the next, however many there were; it never counts as listed.

    So thousands of nodes do not ask for ever for pods that kube-proxy's account may not read.
    """
    told: list[str] = []
    pods = own_pods("n1", may_be_missing=True)
    waited = pauses(Failed("forbidden", code), 8, monkeypatch, pods, told.append)
    assert all(150 <= seconds <= 450 for seconds in waited)
    assert told == ["missing"] * 8


def test_a_kind_that_has_to_be_there_is_asked_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host ports were asked for: rights that come later act within half a minute."""
    told: list[str] = []
    pods = own_pods("n1", may_be_missing=False)
    waited = pauses(Failed("forbidden", 403), 8, monkeypatch, pods, told.append)
    assert max(waited) <= 45
    assert told == ["fares"] * 8
