"""The rules by which the net tests hold explain against what happened: they find what differs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

import pytest

from tests.bed.host import Host
from tests.bed.watching import Probe
from tests.net.agreement import disagreement

NAMES = {"10.0.0.1": "web-0", "10.0.0.2": "web-1", "192.0.2.1": "n1"}


class Somebody:
    """A host, of which nothing counts but its name."""

    name = "app-0"


def probe(said: str = "", errno: str = "", **changes: Any) -> Probe:
    """What a client of a service saw: `said` is SERVER or SERVER CLIENT."""
    server, _, seen = said.partition(" ")
    text = json.dumps({"pod": server, "client": seen}) if server else ""
    host = cast("Host", Somebody())
    return Probe(host, "TCP", "10.96.0.1", 80, "", 40000, errno, text)._replace(**changes)


def answer(verdict: str, **changes: Any) -> dict[str, Any]:
    """What explain says of it: led to web-0, unless told otherwise."""
    made = {
        "verdict": verdict, "via": "device", "mode": "snat", "reason": "",
        "source": "198.51.100.1:40000", "backend": "10.0.0.1:8080",
        "candidates": ["10.0.0.1:8080", "10.0.0.2:8080"],
    }  # fmt: skip
    return made | changes


SOCKET = {"via": "socket", "mode": "socket"}
SENT = {"source": "192.0.2.1:50000"}
ROWS: list[tuple[Probe, dict[str, Any], str]] = [
    (probe("web-0"), answer("local"), ""),
    (probe("web-1"), answer("forward"), "web-1 answered"),
    (probe("web-1"), answer("forward", **SOCKET), ""),
    (probe("web-1"), answer("forward", **SOCKET, remembered=True), "web-1 answered"),
    (probe("web-1", source_port=0), answer("forward"), ""),
    (probe("n1"), answer("forward", **SOCKET), "n1 answered"),
    (probe(errno="ETIMEDOUT"), answer("local"), "nobody answered"),
    (probe(errno="ECONNREFUSED"), answer("local", backend="10.0.0.1:9"), ""),
    (probe("web-0 192.0.2.1"), answer("forward", sent=SENT), ""),
    (probe("web-0 198.51.100.1"), answer("forward", sent=SENT), "saw 198.51.100.1"),
    (probe("web-0 198.51.100.1"), answer("forward", sent=SENT, mode="dsr"), ""),
    (probe("web-0 192.0.2.1"), answer("forward", sent=SENT, mode="dsr"), "saw 192.0.2.1"),
    (probe(errno="ECONNREFUSED"), answer("reject", reason="no_backend"), ""),
    (probe(errno="ETIMEDOUT"), answer("reject", reason="no_backend"), "ECONNREFUSED and not"),
    (probe("web-0"), answer("drop", reason="no_backend"), "ETIMEDOUT and not an answer"),
    (probe(errno="ETIMEDOUT"), answer("drop", reason="no_port"), "no_port was not counted"),
    (probe("web-0", address="10.0.0.1"), answer("pass"), ""),
    (probe("web-1", address="10.0.0.1"), answer("pass"), "web-1 answered in place of web-0"),
    (probe("web-0"), answer("pass"), "web-0 answered in place of nobody"),
    (probe("client"), answer("pass"), ""),
    (probe(errno="ETIMEDOUT"), answer("pass"), ""),
    (probe(errno="ECONNREFUSED"), answer("pass"), "it was refused"),
    (probe(errno="ECONNREFUSED", address="10.0.0.1"), answer("pass"), ""),
    (probe("app-0", address="127.0.0.1"), answer("pass"), ""),
]


@pytest.mark.parametrize(("seen", "said", "wrong"), ROWS)
def test_rules(seen: Probe, said: dict[str, Any], wrong: str) -> None:
    """Each way to agree, and each way not to."""
    found = disagreement(seen, said, NAMES, Counter(no_backend=1), is_first=True)
    assert wrong in found
    assert bool(wrong) == bool(found)


def test_a_later_row_may_choose_again() -> None:
    """What explain remembers of its own first choice binds nobody."""
    said = answer("forward", **SOCKET, remembered=True)
    assert not disagreement(probe("web-1"), said, NAMES, Counter(), is_first=False)
