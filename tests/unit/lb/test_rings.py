"""Rings of services that are reached from outside: who has one, who is in it, when it is built."""

from __future__ import annotations

import logging

import pytest
from msgspec.structs import replace

from bpf.layout import Service
from lb.address import parse, show_port
from lb.model import Algorithm, Policy
from lb.placing import Placed
from lb.reconcile import Reconciler
from lb.restore import restore
from lb.rings import RING, SEED, Member, Rings
from lb.status import differences
from lb.tables import in_memory
from maglev import Backend, build
from tests.unit.lb.faulty import Watch, watched
from tests.unit.lb.making import N1, numbered, plans, service, slice_of

WEB = service("web", "10.96.0.10", node_port=30080)


def only(agent: Reconciler) -> Placed:
    """The one unit that is there."""
    (placed,) = agent.units.values()
    return placed


def agent_on(watch: Watch, slots: int = 251) -> Reconciler:
    """An agent on what is there."""
    made = Reconciler(watch.tables, guard=lambda: None, ring_slots=slots)
    made.adopt()
    return made


def slots_of(watch: Watch, placed: Placed) -> list[int]:
    """The ring that the maps hold, slot by slot."""
    word = Service.unpack(watch.plain.services.read(placed.service)[: Service.SIZE]).ring
    assert word == placed.ring
    size, first = word & 0xFFFFFFFF, word >> 32
    assert first % 2 == 0
    return memoryview(watch.plain.rings.read(first // 2, -(-size // 2))).cast("I")[:size].tolist()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_ring_is_the_maglev_table_of_addresses_and_ports(count: int) -> None:
    """Of the cluster's seed, with this node's ids in it: 100 slots each, or what is allowed."""
    watch = watched()
    agent = agent_on(watch, slots=16381)
    agent.step(plans(WEB, slice_of("web", *numbered(range(1, count + 1)))), 0.0)
    placed = only(agent)
    named = [Backend(show_port(*w), 1, spot.id) for w, spot in placed.backends.items()]
    size = {2: 251, 3: 509, 10: 1021}[count]
    assert slots_of(watch, placed) == build(named, size=size, seed=SEED).tolist()


@pytest.mark.parametrize(("each", "size"), [(100, 1021), (1000, 16381), (1300, 16381)])
def test_more_slots_a_backend(each: int, size: int) -> None:
    """As many as are asked for, up to the largest ring."""
    watch = watched({"rings": 16384})
    agent = Reconciler(watch.tables, guard=lambda: None, backend_slots=each)
    agent.step(plans(WEB, slice_of("web", *numbered(range(1, 11)))), 0.0)
    assert len(slots_of(watch, only(agent))) == size


def test_one_backend_is_a_ring_of_one_slot() -> None:
    """Whatever the hash, it is chosen."""
    watch = watched()
    agent = agent_on(watch)
    agent.step(plans(WEB, slice_of("web", "1")), 0.0)
    assert slots_of(watch, only(agent)) == [1]


def test_who_has_no_way_in_from_outside_has_no_ring() -> None:
    """A cluster IP alone, a service without endpoints, a Local policy with none here."""
    alone = service("web", "10.96.0.10")
    local = service("web", "10.96.0.10", node_port=30080, external_policy=Policy.LOCAL)
    for one, endpoints in ((alone, ["1", "2"]), (WEB, []), (local, ["1 n2", "2 n2"])):
        agent = agent_on(watched())
        agent.step(plans(one, slice_of("web", *endpoints)), 0.0)
        assert (only(agent).ring, agent.placer.rings.extents.used) == (0, 0)


def test_a_ring_goes_with_its_backends() -> None:
    """Without endpoints its word is 0 and its room is free."""
    watch = watched()
    agent = agent_on(watch)
    agent.step(plans(WEB, slice_of("web", "1", "2")), 0.0)
    assert only(agent).ring
    agent.step(plans(WEB, slice_of("web")), 1.0)
    assert slots_of(watch, only(agent)) == []
    assert agent.placer.rings.extents.used == 0


def test_a_ring_of_the_same_backends_stays() -> None:
    """A change of affinity is none of the ring's business."""
    watch = watched()
    agent = agent_on(watch)
    agent.step(plans(WEB, slice_of("web", "1", "2")), 0.0)
    before = only(agent).ring
    sticky = service("web", "10.96.0.10", node_port=30080, affinity_seconds=10)
    agent.step(plans(sticky, slice_of("web", "1", "2")), 1.0)
    assert only(agent).ring == before


def test_full_rings_fail_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Such a service is served without; it is logged once, with the flag, and verify is content."""
    watch = watched({"rings": 64})
    agent = agent_on(watch)
    with caplog.at_level(logging.WARNING):
        for number in (2, 3, 4):
            agent.step(plans(WEB, slice_of("web", *numbered(range(1, number + 1)))), float(number))
    assert (agent.failing, only(agent).ring) == ({}, 0)
    assert [record.message.count("--max-rings") for record in caplog.records] == [1]
    assert differences(agent) == []


def results(agent: Reconciler) -> dict[str, int]:
    """What came of tables that were to be built, without what did not happen."""
    return {result: count for result, count in agent.placer.rings.builds.results.items() if count}


def test_builds_are_counted_by_what_came_of_them() -> None:
    """One a ring that is written, and none for what leaves it as it is or takes it away."""
    watch = watched({"rings": 256})
    agent = agent_on(watch, slots=13)
    agent.step(plans(WEB, slice_of("web", "1", "2")), 0.0)
    sticky = service("web", "10.96.0.10", node_port=30080, affinity_seconds=10)
    agent.step(plans(sticky, slice_of("web", "1", "2")), 1.0)
    assert results(agent) == {"built": 1}
    agent.step(plans(sticky, slice_of("web", "1", "3")), 2.0)
    assert results(agent) == {"built": 2}
    agent.step(plans(sticky, slice_of("web")), 3.0)
    assert results(agent) == {"built": 2}
    agent.step(plans(sticky, slice_of("web", *numbered(range(1, 15)))), 4.0)
    assert results(agent) == {"built": 2, "too_many_backends": 1}
    full = agent_on(watched({"rings": 64}))
    full.step(plans(WEB, slice_of("web", "1", "2")), 0.0)
    assert results(full) == {"map_full": 1}


def test_a_build_is_timed_by_the_clock_that_was_given() -> None:
    """From its first slot to the last one in the table; what came to nothing is not timed."""
    ticks = iter([5.0, 5.002, 8.0, 8.3])
    rings = Rings(in_memory(), grace=0.0, limit=13, clock=lambda: next(ticks))
    members = [Member(parse(f"10.0.0.{number}"), 80, 1, number) for number in range(1, 15)]
    rings.switch(1, 0, members[:2], 0.0)
    rings.switch(1, 0, members, 1.0)
    rings.switch(1, 0, members[:1], 2.0)
    durations = rings.builds.durations
    found = dict(zip((*durations.bounds, "all"), durations.cumulative(), strict=True))
    assert (found[0.001], found[0.0025], found[0.25], found[0.5], found["all"]) == (0, 1, 1, 2, 2)
    assert durations.sum == pytest.approx(0.302)


def test_a_ring_comes_once_there_is_room() -> None:
    """By itself, without a change of the service; until then nothing but time is asked for."""
    watch = watched({"rings": 256})
    agent = agent_on(watch)
    big = plans(WEB, slice_of("web", "1", "2"))
    late = service("late", "10.96.0.11", node_port=30081)
    other = plans(late, slice_of("late", "3", "4"))
    agent.step(big, 0.0)
    agent.step(other, 0.0)
    rings = {unit.service.name: bool(placed.ring) for unit, placed in agent.units.items()}
    assert (rings, agent.failing) == ({"web": True, "late": False}, {})
    assert [unit.service.name for unit in agent.ringless] == ["late"]
    assert agent.next_retry() == 8.0
    agent.step(plans(WEB, slice_of("web")), 1.0)
    watch.now = 8.0
    agent.step({}, 8.0)
    (placed,) = [one for unit, one in agent.units.items() if unit.service.name == "late"]
    assert len(slots_of(watch, placed)) == 251
    assert (agent.next_retry(), agent.ringless) == (None, [])
    assert differences(agent) == []


@pytest.mark.parametrize("error", [ImportError("no native code"), ValueError("not a prime")])
def test_a_table_that_cannot_be_built_harms_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit fails with the reason, and is tried again; the others of the step are served."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    watch = watched()
    agent = agent_on(watch)
    made = plans(WEB, slice_of("web", "1", "2"))
    other = plans(service("zoo", "10.96.0.12"), slice_of("zoo", "5"))
    with monkeypatch.context() as patch:
        patch.setattr("maglev.build", refuse)
        agent.step(made | other, 0.0)
    assert {unit.service.name: one.error for unit, one in agent.failing.items()} == {
        "web": str(error)
    }
    assert results(agent) == {"refused": 1}
    assert {unit.service.name for unit in agent.units} == {"web", "zoo"}
    watch.now = 10.0
    agent.step(made, 10.0)
    assert agent.failing == {}
    assert differences(agent) == []


@pytest.mark.parametrize("word", [0, 7, 251, 3 << 32 | 251, 1 << 62 | 251, 2 << 32 | 251])
def test_a_spoilt_ring_word_is_seen_and_put_right(word: int) -> None:
    """Verify names it; a restart builds the ring again."""
    watch = watched()
    agent = agent_on(watch)
    made = plans(WEB, slice_of("web", *numbered(range(1, 6))))
    other = plans(service("other", "10.96.0.11", node_port=30081), slice_of("other", "8", "9"))
    agent.step(other | made, 0.0)
    (unit,) = [one for one in agent.units if one.service.name == "web"]
    good = slots_of(watch, agent.units[unit])
    if agent.units[unit].ring == word:
        word += 1
    watch.plain.services.store_word(agent.units[unit].service, RING, word)
    assert differences(agent) != []
    again = Reconciler(watch.plain, guard=lambda: None, ring_slots=251)
    again.adopt()
    again.step(other | made, 10.0)
    again.prune(10.0)
    assert slots_of(watch, again.units[unit]) == good
    assert restore(watch.plain).faults == differences(again) == []


def test_another_size_is_built_at_the_next_start() -> None:
    """The flag of the agent that runs counts."""
    watch = watched()
    made = plans(WEB, slice_of("web", *numbered(range(1, 6))))
    agent_on(watch).step(made, 0.0)
    watch.forget_rest()
    agent = agent_on(watch, slots=509)
    agent.step(made, 10.0)
    assert len(slots_of(watch, only(agent))) == 509


def weighed(*weights: int) -> dict[bytes | int, int]:
    """Of the endpoints 1, 2, 3 and so on."""
    return {parse(f"10.0.0.{n}"): weight for n, weight in enumerate(weights, 1)}


@pytest.mark.parametrize("weights", [(1, 2, 3), (1, 10), (100, 100, 50), (7,)])
def test_weights_are_shares(weights: tuple[int, ...]) -> None:
    """Of the ring and of every list, and a restart finds them in the maps and writes nothing."""
    watch = watched()
    one = service("web", "10.96.0.10", node_port=30080, weights=weighed(*weights))
    given = plans(one, slice_of("web", *numbered(range(1, len(weights) + 1))))
    agent = agent_on(watch, slots=16381)
    agent.step(given, 0.0)
    placed = only(agent)
    ids = [placed.backends[parse(f"10.0.0.{n}"), 8080].id for n in range(1, len(weights) + 1)]
    ring = slots_of(watch, placed)
    for number, weight in zip(ids, weights, strict=True):
        assert ring.count(number) / len(ring) == pytest.approx(weight / sum(weights), rel=0.02)
    raw = watch.plain.slots.read(placed.extents[0], -(-sum(weights) // 16))
    listed = memoryview(raw).cast("I")[: sum(weights)].tolist()
    assert [listed.count(number) for number in ids] == list(weights)
    before = watch.stores
    successor = agent_on(watch, slots=16381)
    successor.step(given, 1.0)
    assert watch.stores == before
    assert differences(successor) == []


def test_a_weight_changes() -> None:
    """Ring and lists are made anew, and ids stay."""
    watch = watched()
    agent = agent_on(watch)
    endpoints = slice_of("web", "1", "2")
    agent.step(plans(WEB, endpoints), 0.0)
    before = {where: spot.id for where, spot in only(agent).backends.items()}
    heavy = service("web", "10.96.0.10", node_port=30080, weights=weighed(1, 4))
    agent.step(plans(heavy, endpoints), 10.0)
    assert {where: spot.id for where, spot in only(agent).backends.items()} == before
    ring = slots_of(watch, only(agent))
    assert ring.count(2) > 3 * ring.count(1)
    assert differences(agent) == []


def test_random_has_no_ring() -> None:
    """By the service's own word or the node's; it may change, and a restart writes nothing."""
    watch = watched()
    endpoints = slice_of("web", "1", "2")
    random = service("web", "10.96.0.10", node_port=30080, algorithm=Algorithm.RANDOM)
    here = replace(N1, algorithm=Algorithm.RANDOM)
    agent = agent_on(watch)
    for one, node, has in ((random, N1, False), (WEB, N1, True), (WEB, here, False)):
        agent.step(plans(one, endpoints, here=node), 0.0)
        assert bool(only(agent).ring) is has
    assert agent.placer.rings.extents.used == 0
    before = watch.stores
    successor = agent_on(watch)
    successor.step(plans(WEB, endpoints, here=here), 1.0)
    assert watch.stores == before
    assert differences(successor) == []
