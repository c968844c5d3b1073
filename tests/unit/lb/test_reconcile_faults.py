"""Any store may fail, and the agent may be killed at any store: the maps never lead astray.

A machine of random services, faults, kills and time runs on `faulty` tables, which check the
safe order after every single store. In quiet times the maps come to what a fresh start writes.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from bpf.layout import Backend, FrontendType, NameKey, NameKind
from lb.address import parse, parse_prefix
from lb.model import Policy, Service, ServiceName
from lb.placing import Placed, Where
from lb.plan import Plan, plan
from lb.reconcile import Reconciler
from lb.restore import restore
from lb.tables import Tables, in_memory
from tests.unit.lb.faulty import SIZES, Killed, Watch, watched
from tests.unit.lb.making import N1, numbered, service, slice_of

NAMES = ("a", "b", "c")
POLICIES = st.sampled_from(Policy)


class Wish(NamedTuple):
    """A service and its endpoints."""

    service: Service
    endpoints: tuple[str, ...]

    def plans(self) -> tuple[Plan, ...]:
        """As the planner has it, on node n1."""
        slices = [slice_of(self.service.name.name, *self.endpoints)]
        return plan(self.service, slices, N1)


ENDPOINTS = st.lists(
    st.tuples(
        st.integers(1, 40), st.sampled_from(["n1", "n2", "-"]), st.sampled_from(["", "draining"])
    ),
    max_size=4,
    unique_by=lambda one: one[0],
).map(lambda found: tuple(" ".join(map(str, one)) for one in found)) | st.just(
    tuple(numbered(range(1, 20), "n2"))
)


@st.composite
def wishes(draw: st.DrawFn, name: str) -> Wish:
    """A service of that name; external addresses are from a small pool, so that they clash."""
    number = NAMES.index(name)
    made = service(
        name,
        draw(st.sampled_from([f"10.96.0.{number}", "10.96.0.9"])),
        node_port=draw(st.sampled_from([0, 30000 + number, 30009])),
        external_ips=tuple(parse(f"198.51.100.{n}") for n in draw(st.sets(st.integers(1, 2)))),
        load_balancer_ips=tuple(parse(f"203.0.113.{n}") for n in draw(st.sets(st.integers(1, 2)))),
        source_ranges=tuple(
            parse_prefix(f"10.{n}.0.0/16") for n in draw(st.sets(st.integers(1, 3)))
        ),
        internal_policy=draw(POLICIES),
        external_policy=draw(POLICIES),
        affinity_seconds=draw(st.sampled_from([0, 0, 100])),
    )
    return Wish(made, draw(ENDPOINTS))


RING_SLOTS = 251


def ring_of(tables: Tables, placed: Placed) -> list[Where]:
    """The backends of a unit's ring in the maps, slot by slot."""
    size, first = placed.ring & 0xFFFFFFFF, placed.ring >> 33
    slots = memoryview(tables.rings.read(first, -(-size // 2))).cast("I")[:size]
    places = {spot.id: where for where, spot in placed.backends.items()}
    return [places[number] for number in slots]


def fresh_ring(one: Plan) -> list[Where]:
    """The ring that an agent on empty maps builds."""
    tables = in_memory(SIZES)
    agent = Reconciler(tables, guard=lambda: None, ring_slots=RING_SLOTS)
    agent.step({one.unit.service: (one,)}, 0.0)
    return ring_of(tables, agent.units[one.unit])


FAULT = st.none() | st.integers(0, 60)


class Faults(RuleBasedStateMachine):
    """One node's maps through bad times and quiet ones."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Watch = watched()
        self.wishes: dict[str, Wish] = {}
        self.reconciler = Reconciler(self.watch.tables, guard=lambda: None, ring_slots=RING_SLOTS)

    def plans(self, *names: str) -> dict[ServiceName, tuple[Plan, ...]]:
        """What a step takes for these services."""
        return {
            ServiceName("default", name): self.wishes[name].plans() if name in self.wishes else ()
            for name in names
        }

    def step(self, *names: str) -> None:
        """A step as the controller takes it: what changed, and what is due."""
        due = [name.name for name in self.reconciler.due(self.watch.now)]
        self.reconciler.step(self.plans(*names, *due), self.watch.now)

    @rule(data=st.data(), name=st.sampled_from(NAMES), fault=FAULT)
    def change(self, data: st.DataObject, name: str, fault: int | None) -> None:
        """A service comes or changes while a store may fail."""
        self.wishes[name] = data.draw(wishes(name))
        self.watch.fail_at = fault
        self.step(name)

    @rule(name=st.sampled_from(NAMES), fault=FAULT)
    def scale(self, name: str, fault: int | None) -> None:
        """A service keeps its addresses and loses its endpoints."""
        if name in self.wishes:
            self.wishes[name] = self.wishes[name]._replace(endpoints=())
        self.watch.fail_at = fault
        self.step(name)

    @rule(name=st.sampled_from(NAMES), fault=FAULT)
    def remove(self, name: str, fault: int | None) -> None:
        """A service goes while a store may fail."""
        self.wishes.pop(name, None)
        self.watch.fail_at = fault
        self.step(name)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 8.0]), fault=FAULT)
    def wait(self, seconds: float, fault: int | None) -> None:
        """Time passes; what failed is tried again, and may fail again."""
        self.watch.now += seconds
        self.watch.fail_at = fault
        self.step()

    @rule(data=st.data(), name=st.sampled_from(NAMES), stores=st.integers(0, 60))
    def kill(self, data: st.DataObject, name: str, stores: int) -> None:
        """The agent is killed in the midst of a change; another takes over what it left."""
        self.wishes[name] = data.draw(wishes(name))
        self.watch.fail_at, self.watch.error = stores, Killed()
        with contextlib.suppress(Killed):
            self.step(name)
        self.watch.fail_at, self.watch.error = None, OSError(5, "Input/output error")
        self.restart()

    @rule()
    def restart(self) -> None:
        """Another agent takes over."""
        self.watch.fail_at = None
        self.watch.forget_rest()
        self.reconciler = Reconciler(self.watch.tables, guard=lambda: None, ring_slots=RING_SLOTS)
        self.reconciler.adopt()
        gone = {name.name for name in self.reconciler.known_services()}
        self.step(*{*self.wishes, *gone})
        self.reconciler.prune(self.watch.now)

    @precondition(lambda self: self.wishes)
    @rule()
    def quiet(self) -> None:
        """Without faults, all is as after a fresh start, and nothing is left over."""
        self.watch.fail_at = None
        for _ in range(4):
            self.watch.now += 10
            self.step()
        assert self.reconciler.failing == {}
        assert self.reconciler.next_retry() is None
        self.is_as_planned()
        self.nothing_is_left_over()
        self.is_stable()

    def teardown(self) -> None:
        """At the end all services go, and the maps are empty."""
        self.watch.fail_at = None
        self.wishes = {}
        self.step(*NAMES)
        for _ in range(2):
            self.watch.now += 10
            self.step()
        self.nothing_is_left_over()
        assert list(self.watch.plain.frontends.items()) == []
        assert list(self.watch.plain.ranges.items()) == []
        assert list(self.watch.plain.names.items()) == []

    def is_as_planned(self) -> None:
        """But for ids and for who holds a contested frontend, the maps say what the plans say."""
        found = restore(self.watch.plain)
        assert found.faults == []
        assert (found.stray_services, found.stray_backends, found.torn) == ([], [], set())
        wanted = {plan.unit: plan for wish in self.wishes.values() for plan in wish.plans()}
        held = {
            one.key: (one, unit)
            for unit, placed in found.units.items()
            for one in placed.plan.frontends
        }
        assert {u: msgspec.structs.replace(p, frontends=()) for u, p in wanted.items()} == {
            u: msgspec.structs.replace(p.plan, frontends=()) for u, p in found.units.items()
        }
        claims = [(one, unit) for unit, plan in wanted.items() for one in plan.frontends]
        assert held.keys() == {one.key for one, _ in claims}
        for key, holding in held.items():
            rivals = [claim for claim in claims if claim[0].key == key]
            assert holding in rivals
            best = min(one.type != FrontendType.CLUSTER_IP for one, _ in rivals)
            assert (holding[0].type != FrontendType.CLUSTER_IP) == best
        for placed in found.units.values():
            for backend in placed.plan.backends:
                number = placed.backends[backend.address, backend.port].id
                record = Backend.unpack(self.watch.plain.backends.read(number))
                assert record.views == backend.views
            assert ring_of(self.watch.plain, placed) == fresh_ring(placed.plan)

    def nothing_is_left_over(self) -> None:
        """Ids, lines, names and claims in use are those that are needed."""
        placer, units = self.reconciler.placer, self.reconciler.units
        assert placer.services.used == len(units)
        assert placer.backends.used == sum(len(one.backends) for one in units.values())
        runs = [run for runs in restore(self.watch.plain).extents.values() for run in runs]
        rings = [one.ring & 0xFFFFFFFF for one in units.values() if one.ring]
        assert placer.rings.extents.used == sum(1 << (-(-n // 2) - 1).bit_length() for n in rings)
        assert placer.lines.used == sum(1 << (lines - 1).bit_length() for _, lines in runs)
        texts = {
            (kind, text)
            for one in units.values()
            for backend in one.plan.backends
            for kind, text in ((NameKind.NODE, backend.node), (NameKind.ZONE, backend.zone))
            if text
        }
        keys = [NameKey.unpack(key) for key, _ in self.watch.plain.names.items()]
        assert sorted(key.id for key in keys if key.kind == NameKind.SERVICE) == sorted(
            one.service for one in units.values()
        )
        assert len([key for key in keys if key.kind != NameKind.SERVICE]) == len(texts)
        claims = self.reconciler.frontends.claims
        assert claims.held.keys() == self.reconciler.frontends.there.keys()
        assert all(claims._waiting.values())

    def is_stable(self) -> None:
        """The same plans again, and again after a restart, are no store at all."""
        before = self.watch.stores
        self.step(*self.wishes)
        assert self.watch.stores == before


TestFaults = Faults.TestCase
TestFaults.settings = settings(
    max_examples=20,
    stateful_step_count=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
