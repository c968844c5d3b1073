"""Much traffic from outside: megabytes, short connections by the hundred, many clients at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bed import connect
from tests.bed.host import PROBES
from tests.net.bulk import to_and_fro
from tests.net.outside import FAMILY, PROTOCOL, TWO_NODES, Outside
from tests.net.world import ECHO, World, url

pytestmark = TWO_NODES
BACKEND = pytest.mark.parametrize("backend", ["web-0", "web-1"])
LINES = 7000


@pytest.fixture(scope="module", autouse=True)
def _lines(world: World) -> None:
    for pod in world.webs:
        pod.line_echo(LINES)


@FAMILY
@BACKEND
def test_megabytes(outside: Outside, megabytes: Path, backend: str, family: str) -> None:
    """20 MB arrive whole both ways, at a backend here and at one elsewhere."""
    place = outside.expose(f"big-{family}-{backend}", [outside.world.pods[backend]])["balancer"]
    to_and_fro(outside.client, url(getattr(place.at, family), place.port), megabytes)


@FAMILY
@BACKEND
def test_short_connections(outside: Outside, backend: str, family: str) -> None:
    """None of 500 connections, one right after the other, fails."""
    pod = outside.world.pods[backend]
    place = outside.expose(f"short-{family}-{backend}", [pod])["balancer"]
    rows = connect(outside.client, getattr(place.at, family), place.port, count=500)
    assert [row for row in rows if row["errno"]] == []
    assert {json.loads(row["said"])["pod"] for row in rows} == {backend}


@FAMILY
@PROTOCOL
@BACKEND
def test_crowd(outside: Outside, backend: str, protocol: str, family: str) -> None:
    """200 clients at once get every answer to their own questions, and no other's."""
    pod, target = outside.world.pods[backend], LINES if protocol == "TCP" else ECHO
    name = f"crowd-{protocol.lower()}-{family}-{backend}"
    place = outside.expose(name, [pod], protocol=protocol, target=target)["balancer"]
    where = (protocol.lower(), getattr(place.at, family), str(place.port))
    seen: Any = outside.client.python(PROBES / "crowd.py", *where, "200", "5", timeout=20)
    assert seen == {"answers": 1000, "wrong": 0, "failed": 0, "servers": {backend: 1000}}
