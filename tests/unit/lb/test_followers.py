"""What those hear who follow the controller: each turn once, and nothing before the first."""

from __future__ import annotations

import logging

import pytest

from lb.events import of_turn
from lb.logs import fields
from lb.telling import tell
from tests.unit.lb.faulty import watched
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import WEB, Bench, changes


def test_changes_count_as_applied_only_where_the_node_is_well() -> None:
    """A turn whose addresses could not be written leaves them waiting."""
    bench = Bench()
    bench.controller.changed(changes(WEB))
    bench.watch.fail_at = 0
    bench.sync()
    assert bench.controller.progress.updated is None
    bench.controller.turn(1.0)
    assert bench.controller.progress.updated is not None


def test_followers_hear_of_all_services_and_then_of_those_that_changed() -> None:
    """Nothing before the first full state; after it also where nothing changed."""
    bench, heard = Bench(), []
    bench.controller.followers.append(
        lambda turn: heard.append({one.name for one in turn.services})
    )
    bench.apply(WEB, service("db", "10.96.0.11"))
    assert heard == []
    bench.sync()
    bench.apply(slice_of("web", "1"))
    bench.apply(slice_of("web", "1"))
    assert heard == [{"web", "db"}, {"web"}, set()]


def test_a_failure_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not at every try; and once when it is over."""
    caplog.set_level(logging.INFO)
    bench = Bench(watched({"backends": 2}))
    bench.controller.followers.append(tell)
    bench.sync()
    bench.apply(WEB, slice_of("web", "1", "2"))
    for now in (1.0, 3.0, 7.0):
        bench.controller.turn(now)
    (failed,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "--max-backends" in fields(failed)["err"]
    assert bench.status()["healthy"] is False
    bench.apply(slice_of("web", "1"), now=8.0)
    assert "no longer fails" in caplog.records[-1].getMessage()
    assert bench.status()["healthy"] is True


def test_a_service_that_does_not_fit_is_an_event() -> None:
    """Once, with the flag that makes room."""
    bench, events = Bench(watched({"backends": 2})), []
    bench.controller.followers.append(lambda turn: events.extend(of_turn(turn)))
    bench.sync()
    bench.apply(WEB, slice_of("web", "1", "2"))
    bench.controller.turn(1.0)
    (event,) = events
    assert (event.kind, event.namespace, event.name) == ("Service", "default", "web")
    assert (event.type, event.reason) == ("Warning", "FailedToProgramService")
    assert "--max-backends" in event.note
