"""Rates between two looks, and how `top` shows them."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from lb.see.rates import Look, moving
from lb.see.top import apart, scaled, screen

NOTHING: dict[str, Any] = dict.fromkeys(("connections_total", "packets", "bytes", "refusals"), 0)


def service(name: str, **counts: int) -> dict[str, Any]:
    """A row of `show services`."""
    named = {"namespace": "default", "name": name, "port_name": "http", "protocol": "TCP"}
    return named | NOTHING | counts


def backend(name: str, number: int, **counts: int) -> dict[str, Any]:
    """A row of `show backends`."""
    place = {"address": f"10.0.0.{number}", "port": 80, "state": "ready", "connections": 3}
    return service(name, **counts) | place


def test_rates() -> None:
    """Per second; what is new began at nothing, what was begun anew counts from nothing."""
    before = Look(10.0, [service("web", packets=100), service("db", packets=50)], [], [])
    after = Look(
        12.0,
        [service("web", packets=300), service("db", packets=20), service("new", bytes=8)],
        [],
        [],
    )
    rates = {row["name"]: row["per_second"] for row in moving(before, after).services}
    assert rates["web"]["packets"] == 100.0
    assert rates["db"]["packets"] == 10.0
    assert rates["new"]["bytes"] == 4.0


def test_the_busiest_come_first() -> None:
    """By new connections, then by packets."""
    after = Look(
        1.0, [service("a"), service("b", packets=5), service("c", connections_total=1)], [], []
    )
    names = [row["name"] for row in moving(Look(0.0, [], [], []), after).services]
    assert names == ["c", "b", "a"]


def limit(pod: str, **counts: int) -> dict[str, Any]:
    """A row of `show limits`, of one direction."""
    counted = dict.fromkeys(("bytes", "delayed", "dropped"), 0) | counts
    both = {"egress_bits_per_second": 10_000_000, "ingress_bits_per_second": None}
    return {
        "namespace": "default", "pod": pod, "state": "enforced", **both,
        "egress": {"state": "enforced", **counted},
    }  # fmt: skip


def test_limits() -> None:
    """What was asked for, what leaves now, in bits, and what waited or was dropped."""
    before = Look(0.0, [], [], [], apart([limit("web-0", bytes=1000)]))
    busy = limit("web-0", bytes=2_501_000, delayed=40, dropped=6)
    now = moving(before, Look(2.0, [], [], [], apart([limit("idle-0"), busy])))
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(screen(now, "node n1  healthy", height=30))
        lines = console.export_text().splitlines()
    at = next(number for number, text in enumerate(lines) if text.startswith("LIMITED POD"))
    assert lines[at + 1].split() == [
        "default/web-0",
        "egress",
        "10M",
        "10M",
        "20",
        "3.0",
        "6",
        "enforced",
    ]
    assert lines[at + 2].startswith("default/idle-0 egress")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.04, "0.0"), (4.21, "4.2"), (9.96, "10"), (17.4, "17"), (999, "999"),
        (999.6, "1.0k"), (1300, "1.3k"), (25e6, "25M"), (3e15, "3000T"),
    ],
)  # fmt: skip
def test_numbers_fit_a_column(value: float, text: str) -> None:
    """Three digits and a unit."""
    assert scaled(value) == text


def test_a_screen() -> None:
    """Names, rates and reasons stand where one looks for them, as many as there is room for."""
    services = [service(f"s{number}", connections_total=number) for number in range(50)]
    backends = [backend("s49", 7, connections_total=4, bytes=2_000_000)]
    drops = [{"reason": "no_port", "count": 9}, {"reason": "no_route", "count": 0}]
    now = moving(Look(0.0, [], [], []), Look(1.0, services, backends, drops))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(screen(now, "node n1  healthy", height=30))
        text = console.export_text()
    lines = text.splitlines()
    assert lines[0] == "node n1  healthy"
    assert lines[3].split() == ["default/s49:http/TCP", "49", "0", "0", "0"]
    assert "10.0.0.7:80" in text
    assert "2.0M" in text
    assert "no_port" in text
    assert "no_route" not in text
    assert len(lines) < 30
