"""Steps of the reconciler: nothing twice, nothing lost over a restart, full maps fail by name."""

from __future__ import annotations

import pytest

from bpf.layout import Backend, BackendState, Frontend, Load, Service
from lb.address import parse, parse_prefix
from lb.config import table_sizes
from lb.model import Protocol, ServiceName, ServicePort, SlicePort
from lb.plan import Plan
from lb.reconcile import Reconciler
from lb.restore import restore
from lb.tables import FLAGS, in_memory
from tests.unit.lb.faulty import Watch, watched
from tests.unit.lb.making import numbered, plans, service, slice_of

Plans = dict[ServiceName, tuple[Plan, ...]]
WEB = service("web", "10.96.0.10", "fd00::10", node_port=30080, affinity_seconds=10)


def reconciler(watch: Watch) -> Reconciler:
    """An agent's, on what is there."""
    made = Reconciler(watch.tables, guard=lambda: None)
    made.adopt()
    return made


def web(*endpoints: str) -> Plans:
    """The service with these endpoints of IPv4."""
    return plans(WEB, slice_of("web", *endpoints))


def everything() -> Plans:
    """Services of all kinds."""
    balancer = service(
        "balancer", "10.96.0.11",
        load_balancer_ips=(parse("203.0.113.1"),), source_ranges=(parse_prefix("10.0.0.0/8"),),
    )  # fmt: skip
    empty = plans(service("empty", "10.96.0.12"))
    return (
        web(*numbered(range(1, 20), "n1")) | plans(balancer, slice_of("balancer", "1 n2")) | empty
    )


def test_replan_is_idempotent() -> None:
    """The same plans once more are not a single store."""
    watch = watched()
    agent = reconciler(watch)
    agent.step(everything(), 0.0)
    before = watch.stores
    outcome = agent.step(everything(), 1.0)
    assert (watch.stores - before, outcome.writes) == (0, 0)


def test_restart_is_invisible() -> None:
    """Another agent with the same plans stores nothing, and prunes nothing."""
    watch = watched()
    reconciler(watch).step(everything(), 0.0)
    before = watch.stores
    agent = reconciler(watch)
    agent.step(everything(), 1.0)
    agent.prune(1.0)
    assert watch.stores == before


def test_restart_is_invisible_to_who_lost_a_frontend() -> None:
    """Nor is a service written again whose frontend another holds; it still waits for it."""
    contested = {
        name: plans(
            service(name, f"10.96.0.1{name}", "fd00::1" + name, node_port=30080),
            slice_of(name, "1"),
        )
        for name in "12"
    }
    watch = watched()
    agent = reconciler(watch)
    agent.step(contested["2"], 0.0)
    agent.step(contested["1"], 0.0)
    before, losses = watch.stores, agent.frontends.claims.losses()
    agent = reconciler(watch)
    outcome = agent.step(contested["1"] | contested["2"], 1.0)
    agent.prune(1.0)
    assert (watch.stores - before, outcome.writes) == (0, 0)
    assert agent.frontends.claims.losses() == losses
    assert len(losses) == 2
    assert {unit.service.name for unit, _, _ in losses} == {"1"}


def test_one_endpoint_costs_the_same_whatever_else_is_there() -> None:
    """The stores of one change do not grow with the number of services."""

    def cost(others: int) -> int:
        watch = watched(
            {"services": 256, "frontends": 512, "names": 512, "vips": 512, "slots": 512}
        )
        agent = reconciler(watch)
        for number in range(others):
            name = f"other-{number}"
            agent.step(plans(service(name, f"10.97.0.{number}"), slice_of(name, "1")), 0.0)
        agent.step(web("1"), 0.0)
        before = watch.stores
        agent.step(web("1", "2"), 0.0)
        return watch.stores - before

    assert cost(0) == cost(60)


def test_what_is_replaced_rests() -> None:
    """Lines and ids of before stay as they are until the grace time is over."""
    watch = watched({"backends": 3, "slots": 3})
    agent = reconciler(watch)
    one = service("web", "10.96.0.10")
    agent.step(plans(one, slice_of("web", "1")), 0.0)
    agent.step(plans(one, slice_of("web", "2")), 0.0)
    agent.step(plans(one, slice_of("web", "3")), 1.9)
    assert list(agent.failing) == list(agent.units)
    watch.now = 2.0
    agent.step(plans(one, slice_of("web", "3")), 2.0)
    assert agent.failing == {}


def test_a_freed_backend_keeps_its_address() -> None:
    """A program that chose it a moment ago still reads where to go."""
    watch = watched()
    agent = reconciler(watch)
    agent.step(web("1"), 0.0)
    number = next(iter(agent.units.values())).backends[parse("10.0.0.1"), 8080].id
    (lost,) = agent.step(web(), 0.0).lost
    record = Backend.unpack(watch.plain.backends.read(number))
    assert (record.address, record.port) == (parse("10.0.0.1"), 8080)
    assert record.state == BackendState.FREE
    assert lost.backend.id == number


def big(table: str) -> Plans:
    """A service that is too much for a table of a few entries, and only for that one."""
    fields: dict[str, object] = {}
    endpoints = ["9"]
    match table:
        case "backends":
            endpoints = numbered(range(20, 30))
        case "slots":
            endpoints = numbered(range(20, 84))
        case "frontends":
            fields["external_ips"] = tuple(parse(f"198.51.100.{n}") for n in range(1, 9))
        case "ranges":
            fields["load_balancer_ips"] = (parse("203.0.113.1"),)
            fields["source_ranges"] = tuple(parse_prefix(f"10.{n}.0.0/16") for n in range(9))
        case "services":
            fields["ports"] = tuple(ServicePort(f"p{n}", Protocol.TCP, n) for n in range(1, 9))
    ports = tuple(SlicePort(name, Protocol.TCP, 1) for name in ("", "p1"))
    return plans(service("big", "10.96.0.99", **fields), slice_of("big", *endpoints, ports=ports))


FULL = {
    "services": {"services": 6},
    "backends": {"backends": 8},
    "slots": {"slots": 6},
    "frontends": {"frontends": 6},
    "ranges": {"ranges": 4},
}


@pytest.mark.parametrize("table", FULL)
def test_a_full_map_fails_only_what_does_not_fit(table: str) -> None:
    """The error names the flag; others come, change and go meanwhile; room is used by itself."""
    watch = watched(FULL[table])
    agent = reconciler(watch)
    agent.step(web("1"), 0.0)
    agent.step(big(table), 0.0)
    assert agent.failing
    for unit, failing in agent.failing.items():
        assert unit.service.name == "big"
        assert FLAGS[table] in failing.error
        assert table in failing.error
    watch.now = 10.0
    agent.step(web("2"), 10.0)
    assert {unit.service.name for unit in agent.failing} == {"big"}
    other = service("other", "10.96.0.20")
    watch.now = 20.0
    agent.step(plans(other, slice_of("other", "3")), 20.0)
    agent.step({other.name: ()}, 20.0)
    small = plans(service("big", "10.96.0.99"), slice_of("big", "9"))
    for watch.now in (30.0, 40.0):  # what it had before goes first, and rests
        agent.step(small, watch.now)
    assert agent.failing == {}
    assert restore(watch.plain).faults == []


def test_who_does_not_fit_keeps_no_room_from_who_does() -> None:
    """The ids that a failing service tried for are free for others at the same moment."""
    watch = watched({"backends": 8})
    agent = reconciler(watch)
    agent.step(big("backends"), 0.0)
    agent.step(web("1", "2"), 0.0)
    assert {unit.service.name for unit in agent.failing} == {"big"}


def test_room_that_appears_is_used() -> None:
    """Once the service that filled the map goes, the one that waits is applied at its retry."""
    watch = watched({"backends": 4})
    agent = reconciler(watch)
    agent.step(web("1", "2"), 0.0)
    waits = plans(service("waits", "10.96.0.20"), slice_of("waits", "3", "4"))
    agent.step(waits, 0.0)
    assert [unit.service.name for unit in agent.failing] == ["waits"]
    agent.step({WEB.name: ()}, 0.5)
    watch.now = 5.0
    assert agent.due(watch.now) == waits.keys()
    agent.step(waits, watch.now)
    assert agent.failing == {}
    assert agent.next_retry() is None


def test_retries_come_slower_and_slower() -> None:
    """One, two, four, eight and again eight seconds; `since` stays."""
    watch = watched({"backends": 2})
    agent = reconciler(watch)
    now, pauses = 0.0, []
    for _ in range(5):
        agent.step(plans(WEB, slice_of("web", "1", "2")), now)
        (failing,) = agent.failing.values()
        pauses.append(failing.retry_at - now)
        assert failing.since == 0.0
        assert agent.next_retry() == failing.retry_at
        now = failing.retry_at
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_guard_stands_before_silence() -> None:
    """The guard is called before a unit that may drop is written; its failure is the unit's."""
    watch = watched()
    calls = []

    def guard() -> None:
        calls.append(len(list(watch.plain.frontends.items())))
        if len(calls) == 1:
            raise OSError(1, "not allowed")

    agent = Reconciler(watch.tables, guard=guard)
    balancer = service(
        "balancer", "10.96.0.11",
        load_balancer_ips=(parse("203.0.113.1"),), source_ranges=(parse_prefix("10.0.0.0/8"),),
    )  # fmt: skip
    agent.step(plans(balancer), 0.0)
    assert [one.error for one in agent.failing.values()] == ["[Errno 1] not allowed"]
    agent.step(plans(balancer), 1.0)
    assert (agent.failing, calls) == ({}, [0, 0])


def test_udp_frontends_that_appear_are_told() -> None:
    """Who was connected to a UDP service's address before it was there has to be ended."""
    agent = reconciler(watched())
    udp = service("dns", "10.96.0.11", ports=(ServicePort("", Protocol.UDP, 53),))
    assert len(agent.step(plans(udp) | web("1"), 0.0).appeared) == 1
    assert agent.step(plans(udp), 0.0).appeared == []


@pytest.mark.parametrize("offset", range(0, 40, 8))
@pytest.mark.parametrize("table", ["services", "backends", "slots"])
def test_junk_in_the_maps_is_survived(table: str, offset: int) -> None:
    """An agent starts on spoilt maps, and makes them right."""
    watch = watched()
    reconciler(watch).step(everything(), 0.0)
    array = getattr(watch.plain, table)
    for index in range(5):
        array.store_word(index, offset % array.size, 0xDEADBEEFDEADBEEF)
    agent = reconciler_without_checks(watch)
    agent.step(everything(), 10.0)
    agent.prune(10.0)
    assert agent.failing == {}
    found = restore(watch.plain)
    assert found.units.keys() == agent.units.keys()
    assert {unit: placed.plan for unit, placed in found.units.items()} == {
        plan.unit: plan for group in everything().values() for plan in group
    }


def reconciler_without_checks(watch: Watch) -> Reconciler:
    """On the tables themselves: spoilt ones are beyond the safe order."""
    made = Reconciler(watch.plain, guard=lambda: None)
    made.adopt()
    return made


def test_unknown_enum_values_are_survived() -> None:
    """What a later version wrote, with types that this one does not know, is pruned."""
    watch = watched()
    reconciler(watch).step(everything(), 0.0)
    key, value = next(iter(watch.plain.frontends.items()))
    watch.plain.frontends.put({b"\7" * len(key): Frontend(1, 99, 0).pack(), key: value})
    watch.plain.names.put({bytes([99, 0, 0, 0, 1, 0, 0, 0]): bytes(256)})
    agent = reconciler(watch)
    agent.step(everything(), 1.0)
    agent.prune(1.0)
    assert b"\7" * len(key) not in dict(watch.plain.frontends.items())


def test_ranges_of_nobody_are_pruned_and_not_those_of_who_takes_the_id() -> None:
    """A range that was left behind under a free id never lets anyone into the id's next owner."""
    watch = watched()
    reconciler(watch).step(everything(), 0.0)
    keys = [key for key, _ in watch.plain.ranges.items()]
    services = watch.plain.services
    services.write(2, bytes(Service.SIZE))
    services.write(3, bytes(Service.SIZE))
    for key, value in list(watch.plain.frontends.items()):
        if Frontend.unpack(value).service in (2, 3):
            watch.plain.frontends.remove([key])
    agent = reconciler(watch)
    watch.forget_rest()
    agent.step(everything(), 1.0)
    agent.prune(1.0)
    (unit,) = [one for one in agent.units if one.service.name == "balancer"]
    left = [key for key, _ in watch.plain.ranges.items()]
    assert agent.ranges.there[unit] == set(left)
    assert agent.ranges.used == len(left)
    assert left != keys


@pytest.mark.parametrize("first", [0, 1_700_000_000])
def test_who_takes_over_an_id_starts_without_connections(first: int) -> None:
    """A backend's count of connections is its own, however generations are counted."""
    tables = in_memory(table_sizes({}) | {"backends": 2, "loads": 2})
    one = Reconciler(tables, guard=lambda: None)
    one.placer.begin_generations(first)
    name = ServiceName("default", "web")
    for now, endpoint in ((0.0, "1"), (10.0, "2")):
        one.step(plans(service("web", "10.96.0.10"), slice_of("web", endpoint)), now)
        assert not one.failing
        assert tables.loads.read(1) == bytes(Load.SIZE)
        tables.loads.write(1, Load(7, 3, 1, 1, 1).pack())
        one.step({name: ()}, now + 1)


def test_the_range_of_node_ports_grows_and_outlives_a_restart() -> None:
    """XDP asks for no others; a range that is too wide costs a look-up, and no more."""
    watch = watched()
    agent = reconciler(watch)
    assert not agent.frontends.node_ports
    agent.step(plans(WEB, slice_of("web", "1")), 0.0)
    assert agent.frontends.node_ports == range(30080, 30081)
    low = service("low", "10.96.0.11", node_port=80)
    agent.step(plans(low, slice_of("low", "2")), 1.0)
    assert agent.frontends.node_ports == range(80, 30081)
    assert reconciler(watch).frontends.node_ports == range(80, 30081)
