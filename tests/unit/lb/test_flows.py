"""Flows from the bytes of their table, and how `show flows` has them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import Flow, FlowState, Forwarding, NameKind, Row, RowSize
from bpf.maps import MemoryArray, MemoryHash
from lb import show
from lb.address import Address, Family, parse, show_port
from lb.cli import SHOWN
from lb.flows import alive, rows, timeout
from lb.model import Protocol, ServiceName
from lb.names import packed, text_of
from lb.plan import Unit
from lb.text import table
from lb.words import flattened

SECOND = 10**9
NOW = 10**6 * SECOND
WEB = Unit(ServiceName("default", "web"), "http", Protocol.TCP, Family.IPV4)
TAGS = st.tuples(*[st.integers(0, 2**32 - 1)] * 2)


def flow(client: str = "198.51.100.10", **changes: Any) -> Flow:
    """A connection through node port 30080 to a backend elsewhere, its last packet just now."""
    fields: dict[str, Any] = {
        "client": parse(client), "frontend": parse("192.0.2.1"), "backend": parse("10.244.1.5"),
        "client_port": 40000, "frontend_port": 30080, "backend_port": 8080, "port": 50000,
        "service": 1, "id": 7, "generation": 1, "protocol": Protocol.TCP,
        "state": FlowState.ESTABLISHED, "mode": Forwarding.SNAT, "facts": 0, "used": NOW,
        "packets": 10, "octets": 5000,
    }  # fmt: skip
    return Flow(**fields | changes)


def row(*places: tuple[Flow, int, int]) -> bytes:
    """A row with these flows and their tags in its first places."""
    padded = [*places, *[(None, 0, 0)] * (RowSize.WAYS - len(places))]
    return Row(
        lock=0,
        crowded=0,
        chosen=0,
        forth=tuple(forth for _, forth, _ in padded),
        back=tuple(back for _, _, back in padded),
        flow=b"".join(one.pack() if one else bytes(Flow.SIZE) for one, _, _ in padded),
    ).pack()


FLOWS = st.builds(
    Flow,
    **dict.fromkeys(("client", "frontend", "backend"), st.binary(min_size=16, max_size=16)),
    **dict.fromkeys(
        ("client_port", "frontend_port", "backend_port", "port"), st.integers(0, 2**16 - 1)
    ),
    **dict.fromkeys(("service", "id", "generation"), st.integers(0, 2**32 - 1)),
    protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
    state=st.sampled_from(FlowState),
    mode=st.sampled_from(Forwarding),
    facts=st.integers(0, 15),
    used=st.integers(NOW - 10_000 * SECOND, NOW + SECOND),
    packets=st.integers(0, 2**64 - 1),
    octets=st.integers(0, 2**64 - 1),
)


@given(st.lists(st.lists(st.tuples(FLOWS, TAGS), max_size=RowSize.WAYS), max_size=6))
def test_what_is_alive_is_found(places: list[list[tuple[Flow, tuple[int, int]]]]) -> None:
    """All flows with a tag and a state whose time is not up, as they were stored, and no other."""
    raw = b"".join(row(*[(one, *tags) for one, tags in group]) for group in places)
    expected = [
        one
        for group in places
        for one, tags in group
        if any(tags)
        and one.state != FlowState.FREE
        and NOW - one.used <= timeout(one.protocol, one.state) * SECOND
    ]
    assert list(alive(raw, NOW)) == expected


@given(st.lists(FLOWS, max_size=8))
def test_rows_are_sorted_and_whole(flows: list[Flow]) -> None:
    """A row a flow, by client address and port, and nothing of a flow is lost on the way."""
    used = [one for one in flows if one.state != FlowState.FREE]
    shown = rows(used, {}, NOW)
    ordered = sorted(used, key=lambda one: (one.client, one.client_port))
    assert sorted((one["packets"], one["bytes"]) for one in shown) == sorted(
        (one.packets, one.octets) for one in used
    )
    assert [one["client"] for one in shown] == [
        show_port(Address(one.client), one.client_port) for one in ordered
    ]
    assert all(one["idle_seconds"] >= 0 for one in shown)


TIMES = [
    # protocol, state, seconds
    (Protocol.TCP, FlowState.NEW, 60),
    (Protocol.TCP, FlowState.ESTABLISHED, 86400),
    (Protocol.TCP, FlowState.CLOSING, 10),
    (Protocol.UDP, FlowState.NEW, 60),
    (Protocol.UDP, FlowState.ESTABLISHED, 180),
]


@pytest.mark.parametrize(("protocol", "state", "seconds"), TIMES)
def test_a_flow_ends_when_its_time_is_up(protocol: int, state: int, seconds: int) -> None:
    """At that moment it is there, a moment later it is gone, whichever tag it has."""
    for tags in ((1, 0), (0, 1), (1, 1)):
        for age, there in ((seconds * SECOND, True), (seconds * SECOND + 1, False)):
            one = flow(protocol=protocol, state=state, used=NOW - age)
            assert list(alive(row((one, *tags)), NOW)) == [one] * there


def test_a_place_without_tags_or_state_is_free() -> None:
    """What a removed flow leaves behind is not shown."""
    gone = row((flow(), 0, 0), (flow(state=FlowState.FREE), 1, 1), (flow(client="::9"), 0, 3))
    assert list(alive(gone, NOW)) == [flow(client="::9")]


@pytest.mark.parametrize("change", [{"protocol": 1}, {"state": 9}, {"mode": 9}])
def test_a_flow_caught_in_a_change_is_left_out(change: dict[str, int]) -> None:
    """What no program writes is no reason to fail, and hides no other flow."""
    assert len(rows([flow(**change), flow()], {}, NOW)) == 1


def test_a_row_has_the_fields_of_the_contract() -> None:
    """Every field, in its form."""
    (shown,) = rows([flow(used=NOW - 3 * SECOND)], {1: WEB}, NOW)
    assert shown == {
        "namespace": "default", "name": "web", "port_name": "http", "protocol": "TCP",
        "client": "198.51.100.10:40000", "frontend": "192.0.2.1:30080",
        "backend": "10.244.1.5:8080", "mode": "snat", "port": 50000, "state": "established",
        "packets": 10, "bytes": 5000, "idle_seconds": 3,
    }  # fmt: skip


def tables() -> tuple[MemoryArray, MemoryHash]:
    """Flows of both families in rows far apart, all just used, and the name of one service."""
    flows, names = MemoryArray(3000, Row.SIZE), MemoryHash(8)
    v6 = {name: parse(f"2001:db8::{n}") for n, name in enumerate(("frontend", "backend"), 1)}
    local = {"mode": Forwarding.LOCAL, "port": 0}
    far = 2**63  # no time runs out on a clock that the test does not know
    flows.write(2999, row((flow(used=far), 1, 2)))
    flows.write(0, row(
        (flow("2001:db8::9", used=far, **v6, **local, service=2, protocol=Protocol.UDP), 5, 0),
        (flow("198.51.100.9", used=far, state=FlowState.NEW, packets=1, octets=60), 0, 6),
    ))  # fmt: skip
    names.put(dict([packed(NameKind.SERVICE, 1, text_of(WEB)), packed(NameKind.NODE, 2, "n1")]))
    return flows, names


GOLDEN = """\
PROTOCOL   CLIENT                FRONTEND              BACKEND              MODE    STATE         IDLE   PACKETS   BYTES   SERVICE
TCP        198.51.100.9:40000    192.0.2.1:30080       10.244.1.5:8080      snat    new           0      1         60      default/web:http/TCP
TCP        198.51.100.10:40000   192.0.2.1:30080       10.244.1.5:8080      snat    established   0      10        5000    default/web:http/TCP
UDP        [2001:db8::9]:40000   [2001:db8::1]:30080   [2001:db8::2]:8080   local   established   0      10        5000    -
"""  # noqa: E501 - as it is printed


def test_the_table_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a flow; a service that nobody can name is a dash."""
    table(flattened("flows", show.flows(*tables())), SHOWN["flows"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == GOLDEN.splitlines()


def test_no_flows_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table is no heading over nothing."""
    empty = MemoryArray(16384, Row.SIZE)
    table(flattened("flows", show.flows(empty, MemoryHash(1))), SHOWN["flows"])
    assert capsys.readouterr().out == "none\n"
