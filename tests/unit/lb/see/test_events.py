"""Events as rows and lines, the filters, and explanations in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from bandwidth.annotations import Direction
from bandwidth.book import Book, Tables
from bandwidth.plan import Owner
from bandwidth.plan import Wanted as WantedLimit
from bpf.layout import Event, EventKind, Forwarding, Hook, Limit, LimitState, NameKind, Reason
from bpf.maps import MemoryArray, MemoryHash
from lb.address import Address, Family, parse
from lb.errors import BadInput
from lb.model import Protocol, ServiceName
from lb.names import packed, text_of
from lb.plan import Unit
from lb.see.events import Wanted, compact, line, row
from lb.see.story import story
from lb.see.who import Who
from lb.tables import in_memory
from lb.words import REASONS

WEB = Unit(ServiceName("default", "web"), "http", Protocol.TCP, Family.IPV4)
PODS = {"10.244.1.5": "default/web-0", "10.244.1.9": "default/app-0"}


def who(pods: dict[str, str] | None = None) -> Who:
    """One service, two pods, one namespace."""
    tables = in_memory()
    assert isinstance(tables.names, MemoryHash)
    tables.names.put(dict([packed(NameKind.SERVICE, 1, text_of(WEB))]))
    found = PODS if pods is None else pods
    return Who(tables, lambda: found, lambda cookie: "10.244.1.9" if cookie == 7 else "", lambda: 0)


def event(**changes: Any) -> Event:
    """A connection from outside to a pod."""
    fields: dict[str, Any] = {
        "time": 0, "netns": 0, "source": parse("198.51.100.10"),
        "destination": parse("203.0.113.10"), "backend": parse("10.244.1.5"),
        "source_port": 40000, "destination_port": 80, "backend_port": 8080, "port": 0,
        "service": 1, "id": 0, "device": 2, "octets": 60, "kind": EventKind.FLOW,
        "hook": Hook.TC, "protocol": Protocol.TCP, "reason": 0, "mode": Forwarding.LOCAL,
    }  # fmt: skip
    return Event(**fields | changes)


def test_a_flow() -> None:
    """Both ends, and their names."""
    found = row(event(), who(), 0.0)
    assert (found["client"], found["frontend"], found["backend"]) == (
        "198.51.100.10:40000", "203.0.113.10:80", "10.244.1.5:8080",
    )  # fmt: skip
    assert (found["service"], found["backend_pod"]) == ("default/web:http", "default/web-0")
    assert line(found).endswith(
        "flow     TCP  198.51.100.10:40000 -> 203.0.113.10:80 (default/web:http)"
        " -> 10.244.1.5:8080 (default/web-0)  local  [tc]"
    )
    assert compact(found).endswith("TCP 198.51.100.10:40000>203.0.113.10:80>10.244.1.5:8080 local")


@pytest.mark.parametrize(
    ("netns", "client", "pod"), [(7, "10.244.1.9", "default/app-0"), (8, "netns:8", "")]
)
def test_a_socket_without_an_address(netns: int, client: str, pod: str) -> None:
    """It is known by its network namespace, be it only by number."""
    blank = Address(bytes(16))
    made = event(kind=EventKind.CONNECT, hook=Hook.SOCKET, netns=netns, source=blank)
    found = row(made, who(), 0.0)
    assert (found["client"], found["client_pod"]) == (client, pod)


@pytest.mark.parametrize("reason", [one for one in Reason if one])
def test_a_drop(reason: Reason) -> None:
    """Its reason, in one word and in a sentence."""
    made = event(kind=EventKind.DROP, reason=reason, backend=bytes(16), backend_port=0)
    text = line(row(made, who({}), 0.0))
    assert f"{reason.name.lower()} ({REASONS[reason.name.lower()]})" in text
    assert " -> 203.0.113.10:80 (default/web:http)  " in text


def test_a_drop_of_a_limit() -> None:
    """The pod and the direction that are limited, also of what has no ports."""
    limits = MemoryHash(8)
    owner = Owner("default", "web-0", Direction.EGRESS)
    tables = Tables(MemoryArray(8, Limit.SIZE), MemoryHash(8), limits)
    Book(tables).apply({owner: WantedLimit(1000, ())}, {owner: LimitState.ENFORCED})
    number = int.from_bytes(next(iter(dict(limits.items()))), "little")
    known = Who(in_memory(), dict, lambda _: "", lambda: 0, limits)
    made = event(
        kind=EventKind.DROP, reason=Reason.BANDWIDTH, id=number, service=0, protocol=1,
        backend=bytes(16), backend_port=0,
    )  # fmt: skip
    found = row(made, known, 0.0)
    assert (found["limited_pod"], found["direction"]) == ("default/web-0", "egress")
    assert (found["protocol"], found["backend_node"]) == ("protocol 1", "")
    assert line(found).endswith("is full)  egress of default/web-0  [tc]")
    assert Wanted(pod="default/web-0").takes(found)


FILTERS = [
    (Wanted(), True), (Wanted(service="default/web"), True), (Wanted(service="default/db"), False),
    (Wanted(pod="default/web-0"), True), (Wanted(pod="default/app-0"), False),
    (Wanted(address="198.51.100.10"), True), (Wanted(address="::ffff:10.244.1.5"), True),
    (Wanted(address="10.0.0.1"), False), (Wanted(reason="no_port"), False),
    (Wanted(service="default/web", address="10.0.0.1"), False),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "taken"), FILTERS)
def test_filters(wanted: Wanted, *, taken: bool) -> None:
    """All of them have to agree."""
    assert wanted.checked().takes(row(event(), who(), 0.0)) is taken


@pytest.mark.parametrize(
    "wanted", [Wanted(service="x"), Wanted(pod="a/b/c"), Wanted(reason="x"), Wanted(address="x")]
)
def test_bad_filters(wanted: Wanted) -> None:
    """Are refused, and not silently empty."""
    with pytest.raises(BadInput):
        wanted.checked()


BASE: dict[str, Any] = {
    "verdict": "forward", "service": "default/web", "frontend": "203.0.113.10:80",
    "destination": "203.0.113.10:80", "backend": "10.244.2.5:80", "backend_pod": "",
    "backend_node": "n2", "algorithm": "maglev", "mode": "snat", "reason": "",
    "source": "198.51.100.10:1", "source_pod": "", "via": "device", "device_in": "eth0",
    "device_out": "eth0", "frontend_type": "load_balancer", "view": "outside",
    "has_ranges": False, "affinity_seconds": 0, "candidates": ["10.244.2.5:80"],
    "remembered": False, "flow": "begins", "ring": {"slot": 3, "slots": 251}, "port": 50000,
    "sent": {"source": "192.0.2.1:50000", "destination": "10.244.2.5:80"},
}  # fmt: skip
STORIES: list[tuple[dict[str, Any], str]] = [
    ({}, "slot 3 of 251"),
    ({}, "sent on as 192.0.2.1:50000 -> 10.244.2.5:80, by eth0; answers come back here."),
    ({"affinity_seconds": 60, "remembered": True}, "60 s: the client is remembered"),
    ({"flow": "established"}, "known (established) and stays with its backend"),
    ({"verdict": "drop", "reason": "source_range", "has_ranges": True, "backend": ""}, "is not in"),
    ({"verdict": "reject", "reason": "no_backend", "candidates": [], "backend": ""}, "no backend."),
    ({"via": "socket", "source_pod": "default/app-0"}, "A socket (pod default/app-0) on this node"),
    ({"answers": "198.51.100.10:1"}, "It is an answer to 198.51.100.10:1, of default/web."),
]


@pytest.mark.parametrize(("changes", "said"), STORIES)
def test_stories(changes: dict[str, Any], said: str) -> None:
    """Each step has its sentence."""
    assert said in "\n".join(story(BASE | changes))


def test_the_story_of_a_stranger() -> None:
    """What is no service's is told in two sentences."""
    answer = {key: value for key, value in BASE.items() if key != "frontend_type"}
    lines = story(answer | {"verdict": "pass"})
    assert lines[1:] == ["203.0.113.10:80 is no service's address: nothing is done to it."]
