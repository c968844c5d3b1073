"""`show flows` against the pinned table: in text and JSON, narrowed, with the agent dead."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bpf.layout import Flow, FlowState, Forwarding, Row, RowSize
from bpf.pins import Pins
from lb.address import parse
from lb.names import unpacked
from tests.net.world import World

pytestmark = pytest.mark.parametrize("world", ["one_node"], indirect=True)

CLIENTS = {"198.51.100.10": "192.0.2.1", "2001:db8::10": "2001:db8::1"}
"""By client the frontend that it talks to."""


def _flow(client: str, number: int, service: int) -> Flow:
    return Flow(
        client=parse(client),
        frontend=parse(CLIENTS[client]),
        backend=parse("10.244.1.5" if "." in client else "fd00:244::5"),
        client_port=40000,
        frontend_port=80,
        backend_port=8080,
        port=50000 + number,
        service=service,
        id=1,
        generation=1,
        protocol=6,
        state=FlowState.ESTABLISHED,
        mode=Forwarding.SNAT,
        facts=0,
        used=time.monotonic_ns(),
        packets=10,
        octets=5000,
    )


@pytest.fixture
def flows(world: World) -> Iterator[list[Flow]]:
    """Two connections, in the last row of the table, as the data path puts them."""
    world.serve("web", world.webs)
    pins = Pins(world.agent.bpffs)
    table = pins.open_array("flows")
    texts = [unpacked(*entry) for entry in pins.open_hash("names").items()]
    (service,) = [number for _, number, text in texts if text == "default/web//TCP/IPv4"]
    found = [_flow(client, number, service) for number, client in enumerate(CLIENTS)]
    rest = RowSize.WAYS - len(found)
    tags = (*[7] * len(found), *[0] * rest)
    raw = b"".join(flow.pack() for flow in found) + bytes(rest * Flow.SIZE)
    table.write(table.capacity - 1, Row(0, 0, 0, tags, tags, raw).pack())
    yield found
    table.write(table.capacity - 1, bytes(Row.SIZE))
    world.remove("web")


def _shown(world: World, *argv: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        world.agent.tidegate("show", "flows", *argv, "-o", "json").stdout
    )
    return found


def test_none(world: World) -> None:
    """A table that nothing went through has no rows, and says so in words."""
    assert _shown(world) == []
    assert world.agent.tidegate("show", "flows").stdout == "none\n"


def test_flows(world: World, flows: list[Flow]) -> None:
    """What is in the table is shown in both families, with the name of the service."""
    v4, v6 = _shown(world)
    assert v4.pop("idle_seconds") < 60
    assert v4 == {
        "namespace": "default", "name": "web", "port_name": "", "protocol": "TCP",
        "client": "198.51.100.10:40000", "frontend": "192.0.2.1:80", "backend": "10.244.1.5:8080",
        "mode": "snat", "port": 50000, "state": "established", "packets": 10, "bytes": 5000,
    }  # fmt: skip
    assert v6["client"] == "[2001:db8::10]:40000"
    assert v6["backend"] == f"[fd00:244::5]:{flows[1].backend_port}"
    text = world.agent.tidegate("show", "flows").stdout
    assert text.startswith("PROTOCOL")
    assert "[2001:db8::1]:80" in text


def test_narrowed(world: World, flows: list[Flow]) -> None:
    """One service, or one address, if somebody asks for it."""
    assert len(_shown(world, "--service", "default/web")) == len(flows)
    assert _shown(world, "--service", "default/other") == []
    (row,) = _shown(world, "--address", "2001:db8::10")
    assert row["client"] == "[2001:db8::10]:40000"


def test_agent_dead(world: World, flows: list[Flow]) -> None:
    """The pins are enough."""
    world.agent.kill()
    try:
        assert len(_shown(world)) == len(flows)
    finally:
        world.agent.start()
