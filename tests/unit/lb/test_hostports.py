"""Host ports as the portmap plugin serves them: one pod, this node, these addresses."""

from __future__ import annotations

import pytest

from bpf.layout import BackendFlag, FrontendKey, FrontendType, Scope
from lb.address import Address, parse
from lb.hostports import Exposed, HostPort, plans, service_name, why_not
from lb.model import Protocol
from lb.plan import VIEWS
from lb.status import differences
from tests.unit.lb.making import N1, service, slice_of
from tests.unit.lb.making import plans as service_plans
from tests.unit.lb.test_controller import Bench

TCP, UDP = Protocol.TCP, Protocol.UDP
POD = (parse("10.244.1.5"), parse("fd00:10:244:1::5"))


def frontends(*ports: HostPort, addresses: tuple[Address, ...] = POD) -> list[str]:
    """What a pod with these ports answers to."""
    found = []
    for plan in plans(Exposed("default", "web-0", addresses, ports), N1):
        (frontend,) = plan.frontends
        assert frontend.type is FrontendType.HOST_PORT
        key = FrontendKey.unpack(frontend.key)
        (backend,) = plan.backends
        assert backend.views == VIEWS | BackendFlag.HERE
        where = "node" if key.scope == Scope.NODE else key.address.hex()[-8:]
        name = Protocol(key.protocol).name
        found.append(f"{where} {key.port}/{name} {plan.unit.family.label} {backend.port}")
    return found


CASES = [
    # ports, frontends
    (
        [HostPort(8080, 80, TCP)],
        ["node 8080/TCP IPv4 80", "node 8080/TCP IPv6 80"],
    ),
    ([HostPort(53, 5353, UDP, parse("192.0.2.1"))], ["c0000201 53/UDP IPv4 5353"]),
    ([HostPort(53, 5353, UDP, parse("2001:db8::1"))], ["00000001 53/UDP IPv6 5353"]),
    ([HostPort(80, 80, TCP, parse("0.0.0.0"))], ["node 80/TCP IPv4 80"]),
    ([HostPort(80, 80, TCP, parse("::"))], ["node 80/TCP IPv6 80"]),
    ([HostPort(80, 80, TCP, parse("127.0.0.1"))], []),
    ([HostPort(80, 80, TCP, parse("::1"))], []),
    ([HostPort(80, 80, Protocol.SCTP)], []),
    (
        [HostPort(80, 8080, TCP, parse("192.0.2.1")), HostPort(80, 8081, TCP, parse("192.0.2.2"))],
        ["c0000201 80/TCP IPv4 8080", "c0000202 80/TCP IPv4 8081"],
    ),
    (
        [HostPort(80, 1, TCP, parse("0.0.0.0")), HostPort(80, 2, UDP, parse("0.0.0.0"))],
        ["node 80/TCP IPv4 1", "node 80/UDP IPv4 2"],
    ),
]


@pytest.mark.parametrize(("ports", "expected"), CASES)
def test_frontends(ports: list[HostPort], expected: list[str]) -> None:
    """By port, protocol and hostIP, in the pod's own families."""
    assert frontends(*ports) == expected


def test_what_is_not_served_is_explained() -> None:
    """A line for the user; nothing for what is served."""
    assert "loopback" in why_not(HostPort(80, 80, TCP, parse("127.8.0.1")))
    assert "SCTP" in why_not(HostPort(80, 80, Protocol.SCTP))
    assert why_not(HostPort(80, 80, TCP)) == ""


def test_a_pod_of_one_family_has_ports_of_one() -> None:
    """And a pod without any address has none."""
    assert frontends(HostPort(80, 80, TCP), addresses=POD[:1]) == ["node 80/TCP IPv4 80"]
    assert frontends(HostPort(80, 80, TCP), addresses=()) == []


def test_in_the_maps_beside_services() -> None:
    """A restart reads them back; a node port that is held already is not taken away."""
    bench = Bench()
    web = service("web", "10.96.0.10", node_port=30080)
    bench.apply(web, slice_of("web", "1"))
    bench.sync()
    pod = Exposed("default", "web-0", POD, (HostPort(8080, 80, TCP), HostPort(30080, 80, TCP)))
    name = service_name("default", "web-0")
    bench.reconciler.step({name: plans(pod, N1)}, 1.0)
    assert differences(bench.reconciler) == []
    (loss,) = bench.reconciler.frontends.claims.losses()
    assert loss[0].service == name
    assert loss[2].service == web.name
    again = Bench(bench.watch)
    assert name in again.reconciler.known_services()
    assert not again.reconciler.step(
        {name: plans(pod, N1), **service_plans(web, slice_of("web", "1"))}, 2.0
    ).writes
    again.reconciler.step({name: ()}, 3.0)
    assert name not in again.reconciler.known_services()
