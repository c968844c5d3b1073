"""The masquerade matrix through real sockets: whom each of the 27 flows meets, seen as whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bed import Host, connect
from tests.matrix import ROWS, Row
from tests.net.outside import FAMILY, TWO_NODES, Met, Outside, Place
from tests.net.world import World

pytestmark = TWO_NODES

POLICIES: dict[str, dict[str, Any]] = {
    "": {},
    "internal": {"internal_policy": "Local"},
    "external": {"external_policy": "Local"},
}
BATCHES = 5
"""Of eight connections each: two equal endpoints are both met but for one time in 2^39."""


@pytest.fixture(scope="module")
def services(world: World, outside: Outside) -> dict[str, dict[str, Place]]:
    """A service of every kind of frontend for each policy; web-0 is here, web-1 is not."""
    return {
        policy: outside.expose(f"matrix-{policy or 'none'}", world.webs, **spec)
        for policy, spec in POLICIES.items()
    }


def met(client: Host, address: str, port: int, *, wanted: int) -> set[Met]:
    """Everyone met in batches of connections, until so many were."""
    found: set[Met] = set()
    for _ in range(BATCHES):
        for row in connect(client, address, port, "--timeout", "1", count=8):
            said = json.loads(row["said"]) if row["errno"] is None else {}
            found.add(Met(said.get("pod", row["errno"]), said.get("client", "")))
        if len(found) >= wanted:
            break
    return found


@FAMILY
@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row.flow) for row in ROWS])
def test_flow(
    world: World, outside: Outside, services: dict[str, dict[str, Place]], row: Row, family: str
) -> None:
    """The endpoints of its list and no others, each seeing the client that it should."""
    place = services[row.flow.policy][row.flow.frontend]
    clients: dict[str, Host] = {"pod": world.app, "node": world.node, "outside": outside.client}
    client = clients[row.flow.source]
    whom, as_whom = row.tidegate
    own, node = getattr(client, family), getattr(world.node, family)
    near = Met("web-0", node if as_whom == "M" else own)
    far = Met("web-1", own if as_whom == "-" else node)
    expected = {near} if whom == "L" else {near, far}
    address = getattr(place.at, family)
    assert met(client, address, place.port, wanted=len(expected)) == expected
