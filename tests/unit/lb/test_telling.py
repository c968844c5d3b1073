"""What is said of each turn: every change once, with its object, its cause and its time."""

from __future__ import annotations

import logging

import pytest

from lb.logs import V2, V4, fields
from lb.model import Change, Key, Kind, Refused
from lb.telling import MOST, tell
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import WEB, Bench

Said = list[tuple[int, str, dict[str, object]]]


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    """A controller that tells, synced."""
    caplog.set_level(1)
    bench = Bench()
    bench.controller.followers.append(tell)
    bench.apply(WEB)
    bench.sync()
    return bench


def said(caplog: pytest.LogCaptureFixture) -> Said:
    """Level, message and keys of what was said since; times are left out."""
    found = [
        (one.levelno, one.getMessage(), {k: v for k, v in fields(one).items() if k != "duration"})
        for one in caplog.records
    ]
    caplog.clear()
    return found


def test_the_first_state_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is in it."""
    caplog.set_level(1)
    bench = Bench()
    bench.controller.followers.append(tell)
    bench.apply(WEB)
    bench.sync()
    assert said(caplog)[-1:] == [(logging.INFO, "synced: 1 services, 3 writes", {"writes": 3})]


def test_a_change_is_told_with_its_cause(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Once; what changes nothing is not told."""
    caplog.clear()
    for _ in range(2):
        bench.apply(slice_of("web", "1"))
    (level, message, keys), *more = said(caplog)
    assert (level, message, more) == (V2, "Change is applied", [])
    assert keys == {
        "service": "default/web", "cause": "EndpointSlice default/web-IPv4-1", "writes": 1,
    }  # fmt: skip
    bench.apply(service("web", "10.96.0.11"))
    assert said(caplog)[0][2]["cause"] == "Service default/web"


def test_a_flood_is_one_line_and_details(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand lines for one turn would cost more than the turn."""
    caplog.clear()
    bench.apply(*[service(f"s{n}", f"10.97.0.{n + 1}") for n in range(MOST + 1)])
    found = said(caplog)
    assert found[0][:2] == (V2, "Changes are applied")
    assert found[0][2]["services"] == MOST + 1
    assert [level for level, *_ in found[1:]] == [V4] * (MOST + 1)


def test_what_is_left_out_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Faults as warnings; what Kubernetes leaves alone only as details."""
    caplog.clear()
    key = Key(Kind.SERVICE, "default", "odd")
    wrong = Refused(str(key), "spec.ports[0].port: missing")
    headless = Refused(str(key), "headless", wrong=False)
    for refused in ((wrong,), (wrong,), (headless,)):
        bench.controller.changed([Change(key, None, refused)])
        bench.controller.turn(1.0)
    assert said(caplog) == [
        (logging.WARNING, "Left out", {"object": "Service default/odd", "reason": wrong.reason}),
        (V4, "Left out", {"object": "Service default/odd", "reason": "headless"}),
    ]
