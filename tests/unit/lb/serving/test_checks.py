"""Which services have a health check node port, where it listens, and what it counts."""

from __future__ import annotations

import pytest

from bpf.layout import AddressFlag
from lb.address import Family, parse
from lb.model import EndpointSlice, Key, Protocol, Service, ServiceName, SlicePort
from lb.serving.answer import Answer, Place
from lb.serving.checks import Checks, count, hosts
from lb.store import Store
from lb.turn import Turn
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import changes

LOCAL, ACCEPTS = AddressFlag.LOCAL, AddressFlag.LOCAL | AddressFlag.NODE_PORT
HELD = {
    parse("192.0.2.1"): ACCEPTS, parse("192.0.2.9"): LOCAL, parse("127.0.0.1"): LOCAL,
    parse("2001:db8::1"): ACCEPTS, parse("fe80::1"): ACCEPTS, parse("::1"): LOCAL,
}  # fmt: skip
ALL4, ALL6 = ("0.0.0.0",), ("::",)
OWN4, OWN6 = ("192.0.2.1",), ("2001:db8::1",)


@pytest.mark.parametrize(
    ("setting", "mode", "four", "six"),
    [
        ((), "", ALL4, ALL6),
        ((), "iptables", ALL4, ALL6),
        ((), "ipvs", ALL4, ALL6),
        ((), "nftables", OWN4, OWN6),
        (("primary",), "iptables", OWN4, OWN6),
        (("0.0.0.0/0", "192.0.2.0/24"), "nftables", ALL4, ALL6),
        (("0.0.0.0/0", "2001:db8::/64"), "nftables", ALL4, OWN6),
        (("192.0.2.0/28",), "iptables", OWN4, ALL6),
        (("::/0", "192.0.2.0/28"), "iptables", OWN4, ALL6),
    ],
)
def test_it_listens_where_node_ports_are_accepted(
    setting: tuple[str, ...], mode: str, four: tuple[str, ...], six: tuple[str, ...]
) -> None:
    """On all addresses of a family, or on each of those that accept; never on link-local ones."""
    found = hosts(HELD, setting=setting, mode=mode)
    assert found == {Family.IPV4: four, Family.IPV6: six}


PORTS = (SlicePort("a", Protocol.TCP, 1), SlicePort("b", Protocol.TCP, 2))


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([], 0),
        (["1 n1", "2 n1", "3 n2"], 2),
        (["1 n1 draining", "2 n1"], 1),
        (["1 n1 draining"], 0),
        (["1 n1 unready"], 0),
        (["1"], 0),
        (["1 n1", "1 n1"], 1),
    ],
)
def test_only_ready_endpoints_of_this_node_count(endpoints: list[str], expected: int) -> None:
    """Each address once, whatever number of ports; those that terminate count nothing."""
    slices = [
        slice_of("web", *endpoints, ports=PORTS),
        slice_of("web", *endpoints, ports=PORTS, part="2"),
        slice_of("web", "9 n1", which=Family.IPV6),
    ]
    assert count(slices, Family.IPV4, "n1") == expected
    assert count(slices, Family.IPV6, "n1") == 1
    assert count(slices, Family.IPV4, "") == 0


class Sockets:
    """Takes what is wanted, in place of listening."""

    def __init__(self) -> None:
        self.places: dict[Place, Answer] = {}
        self.calls = 0

    def want(self, group: str, places: dict[Place, Answer]) -> None:
        """As of `Listeners`."""
        assert group == "health-checks"
        self.calls += 1
        self.places = places


def turn(causes: dict[ServiceName, Key]) -> Turn:
    """One in which these services changed."""
    return Turn(causes, causes, False, (), {}, (), 0, 0.0)  # noqa: FBT003 - a row


class Bench:
    """Checks over a store; `hosts` may be changed."""

    def __init__(self) -> None:
        self.store, self.sockets = Store("n1"), Sockets()
        self.hosts = {Family.IPV4: ALL4, Family.IPV6: ALL6}
        self.checks = Checks(
            self.store, "n1", self.sockets, lambda: self.hosts, lambda: True  # type: ignore[arg-type]
        )  # fmt: skip

    def apply(self, *objects: Service | EndpointSlice) -> None:
        """A turn with these."""
        self.checks.follow(turn(self.store.apply(changes(*objects)).services))

    def said(self) -> dict[str, tuple[int, str]]:
        """By place: code and weight."""
        return {
            str(place): (response.code, response.headers[0][1])
            for place, answer in self.sockets.places.items()
            for response in [answer("/any")]
        }


def local(name: str, port: int, *ips: str) -> Service:
    """A Local service with a health check node port."""
    return service(name, *(ips or ("10.96.0.1",)), health_check_node_port=port)


def test_ports_come_and_go_with_their_services() -> None:
    """One socket a family; counts follow at once, without a socket opened or closed."""
    bench = Bench()
    bench.apply(slice_of("web", "1 n1"))
    assert bench.said() == {}
    bench.apply(local("web", 32000, "10.96.0.1", "fd00::1"))
    assert bench.said() == {"0.0.0.0:32000": (200, "1"), "[::]:32000": (503, "0")}
    before = bench.sockets.places
    bench.apply(slice_of("web", "1 n1", "2 n1"), slice_of("web", "1 n1", which=Family.IPV6))
    assert bench.said() == {"0.0.0.0:32000": (200, "2"), "[::]:32000": (200, "1")}
    assert bench.sockets.places == before
    bench.apply(local("web", 32001))
    assert bench.said() == {"0.0.0.0:32001": (200, "2")}
    bench.apply(service("web", "10.96.0.1"))
    assert bench.said() == {}


def test_services_without_a_check_cost_nothing() -> None:
    """Nobody is asked for anything."""
    bench = Bench()
    bench.apply(service("web", "10.96.0.1"), slice_of("web", "1 n1"))
    assert bench.sockets.calls == 0


def test_of_two_services_with_one_port_the_first_by_name_has_it() -> None:
    """And the other takes over when it goes."""
    bench = Bench()
    bench.apply(local("b", 32000), local("a", 32000), slice_of("b", "1 n1"))
    assert bench.said() == {"0.0.0.0:32000": (503, "0")}
    bench.apply(service("a", "10.96.0.2"))
    assert bench.said() == {"0.0.0.0:32000": (200, "1")}


def test_new_addresses_of_the_node_are_followed() -> None:
    """Without any change of a service."""
    bench = Bench()
    bench.apply(local("web", 32000))
    bench.hosts = {Family.IPV4: ("192.0.2.1", "192.0.2.2"), Family.IPV6: ()}
    bench.checks.follow(turn({}))
    assert set(bench.said()) == {"192.0.2.1:32000", "192.0.2.2:32000"}
