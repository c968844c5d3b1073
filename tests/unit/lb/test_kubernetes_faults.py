"""What a source on an API server does when the server, the network or an object is at fault."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lb.model import Kind
from tests.bed.apiserver import ApiServer
from tests.bed.apistore import event
from tests.bed.manifests import Manifest, port, service
from tests.unit.lb.conftest import QUICK, Recorder, Start

Breaks = Callable[[ApiServer], None]


def web(name: str = "web", ip: str = "10.96.0.10") -> Manifest:
    """A service of one port."""
    return service(name, cluster_ips=[ip], ports=[port(80)])


def expire_stream(api: ApiServer) -> None:
    """410 as an event of the watch that is open."""
    api.expire_watches("services")


def expire_version(api: ApiServer) -> None:
    """410 as an event of the watch that comes next."""
    api.store.expire()
    api.drop("services")


def expire_request(api: ApiServer) -> None:
    """410 as the answer to the next watch."""
    api.refuse(410, "services", watch=True)
    api.drop("services")


def too_new(api: ApiServer) -> None:
    """504 as the answer to the next watch: the version asked for is ahead of the server's."""
    api.refuse(504, "services", watch=True)
    api.drop("services")


def garbage(api: ApiServer) -> None:
    """A line that is no event."""
    api.say("services", b"}{ \xff not JSON\n")


@pytest.mark.parametrize("fault", [expire_stream, expire_version, expire_request, too_new, garbage])
def test_lists_again_and_delivers_the_difference(
    api: ApiServer, start: Start, fault: Breaks
) -> None:
    """What was missed comes, deletions too; what did not change is not delivered again."""
    api.store.put(web("same"), web("gone", "10.96.0.11"), web("other", "10.96.0.12"))
    inbox = start()
    seen = len(inbox.changes)
    with api.store.changed:
        for watch in api.watches:
            watch.deaf = True
        fault(api)
    api.store.put(web("other", "10.96.0.13"), web("new", "10.96.0.14"))
    api.store.delete("Service", "gone")
    inbox.until(lambda: inbox.names() == {"same", "other", "new"} and api.watched("services"))
    names = {change.key.name for change in inbox.changes[seen:]}
    assert names == {"gone", "other", "new"}
    assert api.count("services", watch=False) == 2
    inbox.until(lambda: not inbox.report_now.error)
    assert len(inbox.synced_after) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble(api: ApiServer, start: Start, code: int) -> None:
    """The error is told once, what was delivered stays, the watch goes on, the error goes."""
    api.store.put(web())
    inbox = start()
    api.refuse(code, "services", watch=True, times=3, retry_after=0)
    api.drop("services")
    inbox.until(lambda: api.count("services", watch=True) == 5)
    inbox.until(lambda: not inbox.report_now.error)
    assert sum(f"services: {code} as told" in one.error for one in inbox.reports) == 1
    assert inbox.names() == {"web"}
    assert api.count("services", watch=False) == 1
    api.store.put(web("new", "10.96.0.11"))
    inbox.until(lambda: inbox.names() == {"web", "new"})


def test_waits_as_long_as_the_server_asks(api: ApiServer, start: Start) -> None:
    """Retry-After is kept, up to the longest pause."""
    inbox = start(QUICK._replace(longest_pause=0.5))
    api.refuse(429, "services", watch=True, retry_after=3600)
    api.drop("services")
    inbox.until(lambda: "429" in inbox.report_now.error)
    told = len(inbox.reports)
    assert not api.watched("services")
    inbox.until(lambda: len(inbox.reports) > told and api.watched("services"))


def test_a_server_that_goes_and_comes_back(api: ApiServer, start: Start) -> None:
    """Refused connections are one line, data stays, and only the difference follows."""
    api.store.put(web("same"), web("gone", "10.96.0.11"))
    inbox = start()
    seen = len(inbox.changes)
    api.stop()
    inbox.until(lambda: inbox.report_now.error.count("Connection refused") == 1)
    assert inbox.names() == {"same", "gone"}
    api.store.delete("Service", "gone")
    api.store.put(web("new", "10.96.0.12"))
    api.start()
    inbox.until(lambda: not inbox.report_now.error and inbox.names() == {"same", "new"})
    assert [change.key.name for change in inbox.changes[seen:]] == ["gone", "new"]


@pytest.mark.parametrize("breaks", [ApiServer.end, ApiServer.drop])
def test_a_stream_that_ends_or_breaks_goes_on(
    api: ApiServer, start: Start, breaks: Callable[[ApiServer, str], None]
) -> None:
    """In order or not: no new list, nothing missed, nothing twice, no error."""
    inbox = start()
    api.store.put(web())
    inbox.until(lambda: inbox.names() == {"web"})
    breaks(api, "services")
    api.store.put(web("new", "10.96.0.11"))
    inbox.until(lambda: inbox.names() == {"web", "new"})
    assert [change.key.name for change in inbox.changes] == ["web", "new"]
    assert api.count("services", watch=False) == 1
    assert not any("services" in report.error for report in inbox.reports)


def test_silence_is_noticed(api: ApiServer, start: Start) -> None:
    """A connection that is open and dead is given up after `silence` seconds."""
    inbox = start(QUICK._replace(silence=0.3))
    api.mute("services")
    api.store.put(web())
    inbox.until(lambda: inbox.names() == {"web"})


def test_a_list_that_breaks_off_begins_again(api: ApiServer, start: Start) -> None:
    """Half an answer is no answer: nothing of it counts, and nothing is taken for gone."""
    api.store.put(web("one"), web("two", "10.96.0.11"))
    inbox = start()
    seen = len(inbox.changes)
    api.broken_lists = 1
    api.store.expire()
    api.drop("services")
    inbox.until(lambda: api.count("services", watch=False) == 3 and api.watched("services"))
    assert inbox.changes[seen:] == []
    assert any("services" in report.error for report in inbox.reports)
    inbox.until(lambda: not inbox.report_now.error)


def test_a_slow_server_is_waited_for(api: ApiServer, start: Start) -> None:
    """Slower than a pause and quicker than a time-out: no fault, and all arrives."""
    api.delay = 3 * QUICK.longest_pause
    api.store.put(web("one"))
    inbox = start()
    api.store.put(web("two", "10.96.0.11"))
    inbox.until(lambda: inbox.names() == {"one", "two"})
    assert not any(report.error for report in inbox.reports)


def test_one_that_answers_too_late_is_a_fault(api: ApiServer, start: Start) -> None:
    """After `answer` seconds of silence it is asked anew."""
    api.delay = 0.5
    api.store.put(web("one"))
    inbox = start(QUICK._replace(answer=0.2), synced=False)
    inbox.until(lambda: "services" in inbox.report_now.error)
    assert not inbox.synced_after
    api.delay = 0.0
    inbox.until(lambda: bool(inbox.synced_after) and inbox.names() == {"one"})


def test_a_list_that_expires_half_way_begins_again(api: ApiServer, start: Start) -> None:
    """A page that is no longer to be had costs a new list, and nothing comes twice."""
    api.store.put(*[web(f"s{i}", f"10.96.{i // 250}.{i % 250 + 1}") for i in range(600)])
    api.forget_pages = 1
    inbox = start()
    assert len(inbox.names()) == 600
    assert len(inbox.changes) == 600
    assert api.count("services", watch=False) == 4


MALFORMED: list[tuple[dict[str, object], str]] = [
    ({"spec": {"clusterIP": "10.96.0.10", "ports": "none"}}, "spec.ports: Expected"),
    ({"spec": 5}, "spec: Expected"),
    ({"metadata": {"name": "bad", "annotations": 7}}, "metadata.annotations: Expected"),
    ({"spec": {"clusterIP": "10.96.0.300", "ports": [{"port": 80}]}}, "10.96.0.300"),
]


@pytest.mark.parametrize(("broken", "reason"), MALFORMED)
def test_a_malformed_object_harms_no_other(
    api: ApiServer, start: Start, broken: Manifest, reason: str
) -> None:
    """It is named with its fault, in a list and in a watch; the others are served."""
    bad = {"kind": "Service", "metadata": {"name": "bad"}} | broken
    api.store.put(bad, web())
    inbox = start()
    assert inbox.names() == {"web"}
    assert reason in _reasons(inbox)
    api.store.put(bad, web("new", "10.96.0.11"))
    inbox.until(lambda: inbox.names() == {"web", "new"})


@pytest.mark.parametrize(("broken", "reason"), MALFORMED)
def test_the_last_good_form_stays(
    api: ApiServer, start: Start, broken: Manifest, reason: str
) -> None:
    """Over a malformed update and a new list; until it is good again, or deleted."""
    api.store.put(web("bad"))
    inbox = start()
    api.store.put({"kind": "Service", "metadata": {"name": "bad"}} | broken)
    inbox.until(lambda: bool(inbox.report_now.problems))
    assert reason in inbox.report_now.problems[0].reason
    assert "stays in force" in inbox.report_now.problems[-1].reason
    api.expire_watches("services")
    inbox.until(lambda: api.count("services", watch=False) == 2 and api.watched("services"))
    assert inbox.names() == {"bad"}
    assert inbox.report_now.problems
    api.store.delete("Service", "bad")
    inbox.until(lambda: not inbox.names() and not inbox.report_now.problems)


def test_an_object_without_a_name(api: ApiServer, start: Start) -> None:
    """It can only be told of; the watch goes on."""
    inbox = start()
    api.say("services", event("ADDED", json.dumps({"metadata": 3}).encode()))
    inbox.until(lambda: bool(inbox.report_now.problems))
    api.store.put(web())
    inbox.until(lambda: inbox.names(Kind.SERVICE) == {"web"})


def _reasons(inbox: Recorder) -> str:
    return " ".join(refused.reason for change in inbox.changes for refused in change.refused)
