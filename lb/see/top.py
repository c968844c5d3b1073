"""`tidegate top`: the busiest services, backends and limited pods, and drops, again and again.

Reads the pinned maps at each turn; the agent is asked only how it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lb.client import ask
from lb.errors import TidegateError
from lb.looking import rows
from lb.see.rates import Look, Moving, Row, moving

_UNITS = ("", "k", "M", "G", "T")


def look(bpffs: Path, api_socket: Path) -> Look:
    """What the maps say now. Raises KernelRefused."""
    services, backends, drops, limits = (
        rows(what, bpffs, api_socket) for what in ("services", "backends", "drops", "limits")
    )
    return Look(time.monotonic(), services, backends, drops, apart(limits))


def apart(limits: list[Row]) -> list[Row]:
    """The rows of `show limits`, one for each direction that is limited."""
    return [
        {
            "pod": f"{row['namespace']}/{row['pod']}",
            "direction": direction,
            "asked": row[f"{direction}_bits_per_second"],
            **row[direction],
        }
        for row in limits
        for direction in ("egress", "ingress")
        if direction in row
    ]


def health(api_socket: Path) -> str:
    """The agent's word on the whole, in one line."""
    try:
        status: dict[str, Any] = ask(api_socket, "/status", timeout=2.0)
    except TidegateError:
        return "no agent answers; the data path goes on"
    said = "healthy" if status["healthy"] else "not as it should be: see tidegate status"
    return f"node {status['node']}  {said}  {status['services']} services"


def top(
    bpffs: Path,
    api_socket: Path,
    *,
    interval: float,
    count: int,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Shows it until interrupted, or `count` times (0: no end). Raises KernelRefused."""
    console = Console()
    frames = _frames(bpffs, api_socket, interval, wait)
    if not console.is_terminal:
        for _, screen in zip(range(count or 1), frames, strict=False):
            console.print(screen)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for number, screen in enumerate(frames, start=1):
            live.update(screen, refresh=True)
            if number == count:
                return


def _frames(
    bpffs: Path, api_socket: Path, interval: float, wait: Callable[[float], None]
) -> Iterator[Group]:
    before = look(bpffs, api_socket)
    while True:
        wait(interval)
        after = look(bpffs, api_socket)
        yield screen(moving(before, after), health(api_socket), height=Console().height)
        before = after


def screen(now: Moving, said: str, *, height: int = 40) -> Group:
    """One picture; the busiest that `height` lines have room for."""
    limits = now.limits[: max(3, height // 6)]
    room = max(3, (height - 12 - (len(limits) + 2 if limits else 0)) // 2)
    limited: list[RenderableType] = [_limits(limits), Text("")] if limits else []
    return Group(
        Text(said, style="bold"),
        Text(""),
        _table("SERVICE", now.services[:room], _service, refusals=True),
        Text(""),
        _table("BACKEND", now.backends[:room], _backend, refusals=False),
        Text(""),
        *limited,
        _drops([row for row in now.drops if row["count"]]),
    )


def _table(heading: str, shown: list[Row], name: Callable[[Row], str], *, refusals: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(heading, overflow="ellipsis", no_wrap=True)
    fields = ["connections_total", "packets", "bytes", *(["refusals"] if refusals else [])]
    for text in ("NEW/s", "PACKETS/s", "BYTES/s", *(["REFUSED/s"] if refusals else ["OPEN"])):
        table.add_column(text, justify="right")
    for row in shown:
        cells = [scaled(row["per_second"][field]) for field in fields]
        table.add_row(name(row), *cells, *([] if refusals else [str(row["connections"])]))
    return table


def _limits(shown: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("LIMITED POD", overflow="ellipsis", no_wrap=True)
    for text in ("ASKED bit/s", "NOW bit/s", "DELAYED/s", "DROPPED/s", "DROPPED"):
        table.add_column(text, justify="right")
    table.add_column("STATE", overflow="ellipsis", no_wrap=True)
    for row in shown:
        rate = row["per_second"]
        table.add_row(
            f"{row['pod']} {row['direction']}", scaled(row["asked"]), scaled(rate["bytes"] * 8),
            scaled(rate["delayed"]), scaled(rate["dropped"]), str(row["dropped"]), row["state"],
        )  # fmt: skip
    return table


def _drops(shown: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("DROPPED OR REFUSED")
    for text in ("PER SECOND", "TOTAL"):
        table.add_column(text, justify="right")
    for row in shown:
        table.add_row(row["reason"], scaled(row["per_second"]["count"]), str(row["count"]))
    return table


def _service(row: Row) -> str:
    port = f":{row['port_name']}" if row["port_name"] else ""
    return f"{row['namespace']}/{row['name']}{port}/{row['protocol']}"


def _backend(row: Row) -> str:
    address = f"[{row['address']}]" if ":" in row["address"] else row["address"]
    state = "" if row["state"] == "ready" else f" {row['state']}"
    return f"{_service(row)}  {address}:{row['port']}{state}"


def scaled(value: float) -> str:
    """`0`, `4.2`, `17`, `1.3k`, `25M`: short enough for a column."""
    unit = 0
    while value >= 999.5 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    text = f"{value:.1f}" if 0 < value < 9.95 else f"{value:.0f}"
    return text + _UNITS[unit]
