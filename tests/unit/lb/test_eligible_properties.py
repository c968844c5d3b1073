"""Which endpoints may serve: what holds for any endpoints, and the rules told a second time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lb.address import Address, Family, parse
from lb.eligible import Candidate, Empty, candidates, select
from lb.model import Endpoint, EndpointSlice, Protocol, ServiceName, SliceName, SlicePort


def join(*slices: EndpointSlice) -> tuple[Candidate, ...]:
    """The candidates of the port http over TCP."""
    return candidates(slices, "http", Protocol.TCP, Family.IPV4)


def places(found: Sequence[Candidate]) -> list[tuple[Address, int]]:
    """The address and port of each candidate."""
    return [(one.address, port) for one, port in found]


ZONES = st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True).map(tuple)
NODES = st.lists(st.sampled_from(["n1", "n2"]), max_size=2, unique=True).map(tuple)
ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from([parse(f"10.0.0.{number}") for number in range(1, 6)]),
    node=st.sampled_from(["", "n1", "n2"]),
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
    zone_hints=ZONES,
    node_hints=NODES,
)
SLICES = st.lists(
    st.builds(
        EndpointSlice,
        st.just(SliceName("default", "web-1")),
        st.just(ServiceName("default", "web")),
        st.just(Family.IPV4),
        st.sampled_from([(SlicePort("http", Protocol.TCP, number),) for number in (80, 8080)]),
        st.lists(ENDPOINTS, max_size=5).map(tuple),
    ),
    max_size=3,
)
FOUND = SLICES.map(lambda slices: join(*slices))
NODE = st.sampled_from(["", "n1", "n9"])
ZONE = st.sampled_from(["", "a", "z"])


def by_the_book(
    found: Sequence[Candidate], node: str, zone: str
) -> tuple[list[Candidate], list[Candidate], list[Candidate]]:
    """Cluster, Local and usable, slowly, as the rules are told in prose."""
    ready = [one for one in found if one.endpoint.ready]
    ending = [one for one in found if one.endpoint.serving and one.endpoint.terminating]
    for_node = [one for one in ready if node and node in one.endpoint.node_hints]
    for_zone = [one for one in ready if zone and zone in one.endpoint.zone_hints]
    if not ready:
        cluster = ending
    elif for_node and not [one for one in ready if not one.endpoint.node_hints]:
        cluster = for_node
    elif for_zone and not [one for one in ready if not one.endpoint.zone_hints]:
        cluster = for_zone
    else:
        cluster = ready
    ready_here = [one for one in ready if node and one.endpoint.node == node]
    ending_here = [one for one in ending if node and one.endpoint.node == node]
    local = ready_here or ending_here
    return cluster, local, [one for one in found if one in ready or one in ending]


@given(FOUND, NODE, ZONE)
def test_select_goes_by_the_book(found: tuple[Candidate, ...], node: str, zone: str) -> None:
    """The quick selection and the slow one agree on any input."""
    got = select(found, node=node, zone=zone)
    expected = by_the_book(found, node, zone)
    assert (list(got.cluster), list(got.local), list(got.usable)) == expected
    assert got.empty == (Empty.DROP if expected[2] else Empty.REFUSE)


@given(SLICES)
def test_one_copy_of_each_place(slices: list[EndpointSlice]) -> None:
    """Each address and port stands once, in order, as the best of its copies."""
    copies = defaultdict(list)
    for one in slices:
        for each in one.endpoints:
            copies[each.address, one.ports[0].port].append(each)
    found = join(*slices)
    assert places(found) == sorted(copies)
    for kept, port in found:
        rivals = copies[kept.address, port]
        assert kept in rivals
        lasting = [each for each in rivals if not each.terminating] or rivals
        assert kept in lasting
        assert kept.ready == any(each.ready for each in lasting)


@given(SLICES, st.randoms(use_true_random=False))
def test_order_decides_nothing(slices: list[EndpointSlice], random: Random) -> None:
    """The result is a function of the set of slices and endpoints."""
    shuffled = [
        msgspec.structs.replace(
            one, endpoints=tuple(random.sample(one.endpoints, len(one.endpoints)))
        )
        for one in random.sample(slices, len(slices))
    ]
    assert join(*shuffled) == join(*slices)


@given(SLICES)
def test_copies_change_nothing(slices: list[EndpointSlice]) -> None:
    """The same slices given twice come to the same as once."""
    assert join(*slices, *slices) == join(*slices)


@given(FOUND, NODE, ZONE)
def test_only_fit_endpoints_serve(found: tuple[Candidate, ...], node: str, zone: str) -> None:
    """A selected endpoint is usable, Local ones are here, and no ready one is passed over."""
    got = select(found, node=node, zone=zone)
    assert set(got.cluster) | set(got.local) <= set(got.usable) <= set(found)
    for one, _ in got.usable:
        assert one.ready or (one.serving and one.terminating)
    assert all(one.node == node != "" for one, _ in got.local)
    for serving, rivals in (
        (got.cluster, found),
        (got.local, [one for one in found if one.endpoint.node == node]),
    ):
        if any(not one.ready for one, _ in serving):
            assert not any(one.ready for one, _ in rivals)


@given(FOUND, NODE, ZONE)
def test_hints_only_narrow(found: tuple[Candidate, ...], node: str, zone: str) -> None:
    """Hints may shorten the Cluster list, never empty it, and touch no other list."""
    bare = [
        Candidate(msgspec.structs.replace(one, zone_hints=(), node_hints=()), port)
        for one, port in found
    ]
    hinted, plain = select(found, node=node, zone=zone), select(bare, node=node, zone=zone)
    assert set(places(hinted.cluster)) <= set(places(plain.cluster))
    assert bool(hinted.cluster) == bool(plain.cluster) == bool(plain.usable)
    assert places(hinted.local) == places(plain.local)
    assert places(hinted.usable) == places(plain.usable)
