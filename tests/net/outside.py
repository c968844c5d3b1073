"""What the tests of traffic from outside share: exposed services, and one answer in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from tests.bed import Client, Host, connect, datagrams
from tests.bed.manifests import ingress
from tests.bed.network import Pair
from tests.bed.process import PATIENCE
from tests.net.world import ECHO, FAMILIES, WEB, World

SERVICES = Pair("10.96.0.0/16", "fd00:10:96::/112")
"""Where `World.vip` takes its addresses from."""

TWO_NODES = pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
PROTOCOL = pytest.mark.parametrize("protocol", ["TCP", "UDP"])
KINDS = ("node_port", "balancer", "external", "cluster")
FAST = ("--timeout", "0.3")
ANSWER = str(max(1.0, PATIENCE / 2))
"""Seconds to wait for one."""


class Met(NamedTuple):
    """Who answered, and as whom it saw the client."""

    server: str
    source: str


class Place(NamedTuple):
    """Where a service can be reached."""

    at: Pair
    port: int


def ask(client: Host, protocol: str, address: str, port: int, *options: str) -> Met:
    """One connect, or one datagram of a connected socket.

    The server is "peer" where another address answered, and the errno where none did.
    """
    options = ("--timeout", ANSWER, *options)
    if protocol == "TCP":
        (row,) = connect(client, address, port, *options)
        peer = row["peer"]
    else:
        (row,) = datagrams(client, (address, port), options=["--connect", *options])
        peer = row["from"]
    if row["errno"]:
        return Met(str(row["errno"]), "")
    said = json.loads(row["said"])
    return Met(said["pod"] if peer == [address, port] else "peer", said["client"])


@dataclass(frozen=True, slots=True)
class Outside:
    """Exposes services of `world`."""

    world: World

    @property
    def client(self) -> Client:
        """The client beyond the router."""
        return self.world.cluster.client

    def expose(
        self,
        name: str,
        hosts: Iterable[Host],
        *,
        protocol: str = "TCP",
        places: dict[str, Place] | None = None,
        **spec: Any,
    ) -> dict[str, Place]:
        """A service with every kind of frontend, by default at new places; those by kind."""
        world = self.world
        found = places or {
            "node_port": Place(world.node.addresses, world.node_port()),
            "balancer": Place(world.vip(), 80),
            "external": Place(world.vip(), 80),
            "cluster": Place(world.vip(), 80),
        }
        spec = {"target": WEB if protocol == "TCP" else ECHO} | spec
        world.serve(
            name,
            hosts,
            at=found["cluster"].at,
            protocol=protocol,
            kind="LoadBalancer",
            node_port=found["node_port"].port,
            external_ips=found["external"].at,
            load_balancer=[ingress(ip) for ip in found["balancer"].at],
            **spec,
        )
        return found

    def ask(self, protocol: str, place: Place, family: str, *options: str) -> Met:
        """What the client outside meets there."""
        address: str = getattr(place.at, family)
        return ask(self.client, protocol, address, place.port, *options)

    def drops(self, reason: str) -> int:
        """How often n1 counted the reason."""
        rows = json.loads(self.world.agent.tidegate("show", "drops", "-o", "json").stdout)
        return next(int(row["count"]) for row in rows if row["reason"] == reason)
