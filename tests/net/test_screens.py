"""`tidegate top` and `tidegate monitor` as their users see them: by the screen of a terminal."""

from __future__ import annotations

import pytest

from bandwidth.annotations import Direction
from tests.bed import connect, datagrams
from tests.bed.agent import command
from tests.bed.terminal import Terminal
from tests.net.outside import FAST, Outside
from tests.net.test_limit_drops import limited
from tests.net.world import World

pytestmark = pytest.mark.parametrize(
    "world", [("one_node", "--repair-interval", "0", "--bandwidth", "off")], indirect=True
)


def shown(world: World, *argv: str) -> Terminal:
    """A command of n1 on a terminal."""
    agent = world.agent
    where = ("--bpffs", str(agent.bpffs), "--api-socket", str(agent.api_socket))
    return Terminal(world.node, *command(), *argv, *where)


def row(lines: list[str], start: str) -> list[str]:
    """The words of the line that begins so."""
    return next(text for text in lines if text.startswith(start)).split()


def test_top(outside: Outside, world: World) -> None:
    """Services, backends, a limited pod and drops, each under its heading; Ctrl-C ends it."""
    busy = outside.expose("busy", [world.near])["balancer"]
    nobody = outside.expose("nobody", [])["cluster"]
    with (
        limited(world, "web-1", Direction.INGRESS),
        shown(world, "top", "--interval", "1") as terminal,
    ):
        terminal.until("LIMITED POD", timeout=30)
        for _ in range(2):
            connect(outside.client, busy.at.ipv4, busy.port, count=20)
            connect(world.app, nobody.at.ipv4, nobody.port, *FAST)
            full = [(world.far.ipv4, 9)] * 3
            datagrams(outside.client, *full, options=["--size", "1000", "--timeout", "0.1"])
        terminal.until("bandwidth")
        lines = terminal.until("no_backend")
        assert lines[0].startswith("node n1  healthy")
        headings = ["SERVICE", "BACKEND", "LIMITED POD", "DROPPED OR REFUSED"]
        at = [next(n for n, text in enumerate(lines) if text.startswith(h)) for h in headings]
        assert at == sorted(at)
        assert lines[at[0] + 1].startswith("default/busy/TCP")
        assert lines[at[1] + 1].startswith("default/busy/TCP  10.244.1.10:8080")
        limit = row(lines, "default/web-1 ingress")
        assert limit[2] == "1.0k"
        assert int(limit[6]) > 0
        assert row(lines, "bandwidth")[2] != "0"
        assert terminal.interrupt() == 0


def test_monitor(outside: Outside, world: World) -> None:
    """A line an event, with names, as they come; Ctrl-C ends it without an error."""
    place = outside.expose("heard", [world.near])["balancer"]
    with shown(world, "monitor", "--service", "default/heard") as terminal:
        terminal.until("listening; Ctrl-C ends it", timeout=30)
        connect(outside.client, place.at.ipv4, place.port)
        text = " ".join(terminal.until("[tc]"))
        assert f"{place.at.ipv4}:80 (default/heard)" in text
        assert "(default/web-0) on n1" in text
        connect(outside.client, place.at.ipv4, place.port, count=2)
        assert terminal.interrupt() == 0
        assert sum("flow     TCP" in line for line in terminal.lines) == 3
        assert not any("Traceback" in line for line in terminal.lines)
