"""Flows of direct server return from their memory: what is shown, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from bpf.layout import DsrFlow, DsrRow, DsrRowSize, FlowTimeout
from bpf.maps import MemoryArray
from lb.address import Family, parse
from lb.direct import Place, Target, alive, count, rows, tag
from lb.model import Protocol, ServiceName
from lb.plan import Unit
from lb.see.fills import of_direct

NOW = 90_000 * (1 << 30)
CLIENT = Place(parse("198.51.100.10"), 40000)
VIP, OTHER = Place(parse("203.0.113.10"), 80), Place(parse("203.0.113.11"), 80)
TARGET = Target(
    Place(parse("10.244.2.5"), 8080),
    7,
    Unit(ServiceName("default", "web"), "http", Protocol.TCP, Family.IPV4),
    (OTHER, VIP),
)


def remembered(**fields: Any) -> bytes:
    """A flow to backend 3, as the data path puts it."""
    known = tag(CLIENT, VIP, Protocol.TCP, 3)
    good = {"client": CLIENT.address, "port": CLIENT.port, "tag": known, "backend": 3}
    good |= {"generation": 7, "used": NOW // (1 << 30) - 5}
    return DsrFlow(**good | fields).pack()


def shown(raw: bytes) -> list[dict[str, Any]]:
    """The rows of `show flows`."""
    return rows(alive(raw, {3: TARGET}), NOW)


def test_a_flow() -> None:
    """Among the service's frontends it is the one that the tag is of."""
    (row,) = shown(bytes(32) + remembered() + bytes(64))
    assert (row["client"], row["frontend"]) == ("198.51.100.10:40000", "203.0.113.10:80")
    assert (row["backend"], row["mode"], row["idle_seconds"]) == ("10.244.2.5:8080", "dsr", 5)
    assert row["packets"] is row["bytes"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"generation": 6},  # of the id's last owner
        {"backend": 4},  # of nobody
        {"tag": 1},  # half written, or of a frontend that is gone
        {"used": 0},  # it ended
        {"used": 1},  # silent for longer than a connection lasts
    ],
    ids=lambda one: next(iter(one)),
)
def test_what_no_packet_finds_is_left_out(fields: dict[str, int]) -> None:
    """The memory is never cleared; what is over stays until its place is needed."""
    assert shown(remembered(**fields)) == []


def test_flows_are_counted_without_their_backends() -> None:
    """Those that did not end, and were not silent for longer than a connection of TCP may be."""
    silent, tick = 1000, 1 << 30
    now = silent * tick + FlowTimeout.TCP * 10**9
    recent = {"used": now // tick}
    flows = [recent, {"used": 0}, {"used": silent - 1}, {"used": silent}]
    flows += [recent | {"tag": 0}, recent | {"backend": 4}]
    raw = b"".join(remembered(**one) for one in flows)
    assert count(raw + bytes(64), now) == 3
    assert count(bytes(4096), now) == 0
    table = MemoryArray(3000, DsrRow.SIZE)
    table.write(2000, raw + bytes(64))
    assert of_direct(table, now) == ("dsr_flows", 3, 3000 * DsrRowSize.WAYS)
