"""Host ports as the portmap plugin serves them: one pod, this node, these addresses."""

from __future__ import annotations

import pytest

from bpf.layout import BackendFlag, FrontendKey, FrontendType, Scope
from lb.address import Address, parse
from lb.hostports import feature, plans, service_name, why_not
from lb.model import ALL_PODS, Change, HostPort, Key, Kind, Pod, Protocol
from lb.plan import VIEWS
from lb.status import differences
from lb.turn import Turn
from tests.unit.lb.making import N1, service, slice_of
from tests.unit.lb.making import plans as service_plans
from tests.unit.lb.test_controller import Bench

TCP, UDP = Protocol.TCP, Protocol.UDP
POD = (parse("10.244.1.5"), parse("fd00:10:244:1::5"))


NAME = service_name("default", "web-0")


def exposed(*ports: HostPort, addresses: tuple[Address, ...] = POD) -> Pod:
    """The pod web-0 on n1."""
    return Pod("web-0", "n1", addresses, host_ports=ports)


def frontends(*ports: HostPort, addresses: tuple[Address, ...] = POD) -> list[str]:
    """What a pod with these ports answers to."""
    found = []
    for plan in plans(NAME, Pod("web-0", "n1", addresses, host_ports=ports), N1):
        (frontend,) = plan.frontends
        assert frontend.type is FrontendType.HOST_PORT
        key = FrontendKey.unpack(frontend.key)
        (backend,) = plan.backends
        assert backend.views == VIEWS | BackendFlag.HERE
        where = Scope(key.scope).name.lower()
        where = key.address.hex()[-8:] if where == "address" else where
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
    ([HostPort(80, 80, TCP, parse("127.0.0.1"))], ["loopback 80/TCP IPv4 80"]),
    ([HostPort(80, 80, TCP, parse("127.0.0.2"))], []),
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
    pod = exposed(HostPort(8080, 80, TCP), HostPort(30080, 80, TCP))
    bench.reconciler.step({NAME: plans(NAME, pod, N1)}, 1.0)
    assert differences(bench.reconciler) == []
    (loss,) = bench.reconciler.frontends.claims.losses()
    assert loss[0].service == NAME
    assert loss[2].service == web.name
    again = Bench(bench.watch)
    assert NAME in again.reconciler.known_services()
    assert not again.reconciler.step(
        {NAME: plans(NAME, pod, N1), **service_plans(web, slice_of("web", "1"))}, 2.0
    ).writes
    again.reconciler.step({NAME: ()}, 3.0)
    assert NAME not in again.reconciler.known_services()


def change(pod: Pod | None) -> Change:
    """The pod web-0 is this now."""
    return Change(Key(Kind.POD, "default", "web-0"), pod)


def put(bench: Bench, *changes: Change) -> None:
    """A turn with these."""
    bench.controller.changed(changes)
    bench.controller.turn(1.0)


def known(bench: Bench) -> set[str]:
    """What the maps serve."""
    return {one.name for one in bench.reconciler.known_services()}


ELSEWHERE = Pod("web-0", "n2", POD, host_ports=(HostPort(8080, 80, TCP),))


@pytest.mark.parametrize(
    ("flag", "pod", "served"),
    [
        (True, exposed(HostPort(8080, 80, TCP)), {"pod:web-0"}),
        (False, exposed(HostPort(8080, 80, TCP)), set()),
        (True, ELSEWHERE, set()),
        (True, exposed(), set()),
    ],
)  # fmt: skip
def test_only_by_flag_and_only_on_the_pods_own_node(
    flag: bool,  # noqa: FBT001
    pod: Pod,
    served: set[str],
) -> None:
    """Whether it comes anew, or was another one before."""
    for before in (None, exposed(HostPort(8080, 80, TCP))):
        bench = Bench(host_ports=flag)
        bench.sync()
        put(bench, change(before))
        put(bench, change(pod))
        assert known(bench) == served


def test_followed_until_the_pod_is_gone() -> None:
    """Another address, another port; what does not matter writes nothing."""
    bench = Bench(host_ports=True)
    bench.sync()
    put(bench, change(exposed(HostPort(8080, 80, TCP))))
    stores = bench.watch.stores
    put(bench, change(Pod("web-0", "n1", POD, egress="10M", host_ports=(HostPort(8080, 80, TCP),))))
    assert bench.watch.stores == stores
    put(bench, change(Pod("web-0", "n1", POD[:1], host_ports=(HostPort(8080, 80, TCP),))))
    assert len(bench.reconciler.units) == 1
    assert differences(bench.reconciler) == []
    put(bench, change(None))
    assert known(bench) == set()
    assert differences(bench.reconciler) == []


def test_a_conflict_is_one_line() -> None:
    """In the status and for the log; it ends when the holder leaves."""
    bench = Bench(host_ports=True)
    turns: list[Turn] = []
    bench.controller.followers.append(turns.append)
    bench.apply(service("web", "10.96.0.10", node_port=30080), slice_of("web", "1"))
    bench.sync()
    put(bench, change(exposed(HostPort(30080, 80, TCP), addresses=POD[:1])))
    (line,) = turns[-1].failed.values()
    assert line == "node port 30080/TCP already leads to default/web/TCP (IPv4)"
    (row,) = bench.status()["failing"]
    assert (row["name"], row["error"]) == ("pod:web-0", line)
    put(bench, Change(Key(Kind.SERVICE, "default", "web"), None))
    assert turns[-1].recovered
    assert bench.status()["failing"] == []


def test_what_is_left_out_is_told() -> None:
    """Once, with the pod's name."""
    bench = Bench(host_ports=True)
    turns: list[Turn] = []
    bench.controller.followers.append(turns.append)
    bench.sync()
    put(bench, change(exposed(HostPort(80, 80, Protocol.SCTP))))
    (told,) = turns[-1].refused
    assert told.subject == "Pod default/web-0"
    assert told.reason == "hostPort 80 over SCTP is not served"


def test_a_restart_waits_for_all_pods() -> None:
    """What an agent before served goes on until an API server has listed every pod."""
    bench = Bench(host_ports=True)
    bench.sync()
    put(bench, change(exposed(HostPort(8080, 80, TCP))))
    again = Bench(bench.watch, host_ports=True, manifests=None)
    again.sync()
    assert known(again) == {"pod:web-0"}
    assert again.controller.host_ports()["state"] == "degraded"
    put(again, ALL_PODS)
    assert known(again) == set()
    assert again.controller.host_ports() == {"state": "on", "pods": 0, "ports": 0}


def test_switched_off_they_go() -> None:
    """At the next start, without a wait for pods that nobody asks for."""
    bench = Bench(host_ports=True)
    bench.sync()
    put(bench, change(exposed(HostPort(8080, 80, TCP))))
    off = Bench(bench.watch, manifests=None)
    off.sync()
    assert known(off) == set()


def test_the_entry_in_the_status() -> None:
    """Off with its reason; else how many are served."""
    assert feature([], is_on=False, waits=False)["state"] == "off"
    pods = [exposed(HostPort(1, 1, TCP), HostPort(2, 2, Protocol.SCTP))]
    assert feature(pods, is_on=True, waits=False) == {"state": "on", "pods": 1, "ports": 1}
