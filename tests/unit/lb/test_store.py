"""The joined state: what a batch of changes touches."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lb.address import Family, Prefix, parse, parse_prefix
from lb.model import (
    Change,
    Endpoint,
    EndpointSlice,
    Key,
    Kind,
    Node,
    Refused,
    Service,
    ServiceCIDR,
    ServiceName,
    SliceName,
    Trigger,
)
from lb.store import Store

WEB, API = ServiceName("default", "web"), ServiceName("default", "api")


def service(name: ServiceName = WEB, affinity: int = 0) -> Change:
    """A service is there."""
    value = Service(name, (), {Family.IPV6: parse("fd00::1")}, affinity_seconds=affinity)
    return Change(Key(Kind.SERVICE, *name), value)


def sliced(name: str, owner: ServiceName = WEB, *, ready: bool = True, time: float = 0.0) -> Change:
    """A slice is there."""
    endpoints = (Endpoint(parse("10.0.0.1"), ready=ready),)
    slice_name = SliceName("default", name)
    value = EndpointSlice(slice_name, owner, Family.IPV4, (), endpoints, time)
    return Change(Key(Kind.SLICE, *slice_name), value)


def node(name: str = "n1", zone: str = "a") -> Change:
    """A node is there."""
    return Change(Key(Kind.NODE, "", name), Node(name, zone))


def gone(change: Change) -> Change:
    """The same object is gone."""
    return Change(change.key, None)


def test_both_sides_may_come_first() -> None:
    """A slice before its service and a service before its slices join all the same."""
    for first, second in ((service(), sliced("a")), (sliced("a"), service())):
        store = Store("n1")
        assert store.apply([first]).services.keys() == {WEB}
        assert store.apply([second]).services.keys() == {WEB}
        assert store.service(WEB) == service().value
        assert store.slices(WEB) == (sliced("a").value,)


def test_slices_are_in_the_order_of_their_names() -> None:
    """Whatever order they came in."""
    store = Store("n1")
    store.apply([sliced("b"), sliced("c"), sliced("a")])
    assert [one.name.name for one in store.slices(WEB)] == ["a", "b", "c"]


def test_equal_content_touches_nothing() -> None:
    """A resync, and a slice of which only the trigger time moved."""
    store = Store("n1")
    store.apply([service(), sliced("a", time=1.0), node()])
    touched = store.apply([service(), sliced("a", time=2.0), node()])
    assert (set(touched.services), touched.node) == (set(), False)
    assert store.slices(WEB)[0].trigger_time == 2.0


def test_a_slice_that_moves_touches_both_services() -> None:
    """The label of a live slice may change; the old service loses its endpoints."""
    store = Store("n1")
    store.apply([sliced("a", WEB)])
    assert store.apply([sliced("a", API)]).services.keys() == {WEB, API}
    assert (store.slices(WEB), len(store.slices(API))) == ((), 1)


def test_removals() -> None:
    """Of services and slices, known and unknown; what is gone is not named any more."""
    store = Store("n1")
    store.apply([service(), sliced("a")])
    assert store.apply([gone(sliced("a"))]).services.keys() == {WEB}
    assert store.apply([gone(service())]).services.keys() == {WEB}
    assert set(store.apply([gone(service()), gone(sliced("a")), gone(node())]).services) == set()
    assert (store.service(WEB), store.slices(WEB), set(store.names())) == (None, (), set())


def test_changes_are_counted_and_named_by_family() -> None:
    """Every change that came counts; families only where content changed."""
    store = Store("n1")
    assert store.apply([service()]).families == {Family.IPV6}
    assert store.apply([sliced("a")]).families == {Family.IPV4}
    assert store.apply([service(), sliced("a")]).families == set()
    assert store.apply([gone(service()), gone(sliced("a"))]).families == set(Family)
    assert (store.seen[Kind.SERVICE], store.seen[Kind.SLICE], store.seen[Kind.NODE]) == (3, 3, 0)


def test_triggers_are_those_of_new_content_since_the_start() -> None:
    """Older ones say nothing of this agent, and a removal has none."""
    store = Store("n1", since=100.0)
    assert store.apply([sliced("a", time=99.0)]).triggers == []
    (found,) = store.apply([sliced("a", ready=False, time=101.0)]).triggers
    assert found == Trigger(WEB, Family.IPV4, 101.0)
    assert store.apply([sliced("a", ready=False, time=102.0)]).triggers == []
    assert store.apply([gone(sliced("a"))]).triggers == []


def test_only_the_own_node_counts() -> None:
    """Another node's change says nothing; an own one that vanished stays as last seen."""
    store = Store("n1")
    assert not store.apply([node("n2")]).node
    assert store.node is None
    assert store.apply([node()]).node
    assert store.apply([node(zone="b")]).node
    assert not store.apply([gone(node())]).node
    assert store.node == Node("n1", "b")


def test_peers_are_the_addresses_of_other_nodes() -> None:
    """They follow what the objects say, and touch no service."""
    store = Store("n1")

    def at(name: str, *addresses: str) -> Change:
        value = Node(name, addresses=tuple(parse(one) for one in addresses))
        return Change(Key(Kind.NODE, "", name), value)

    two = at("n2", "192.0.2.2", "2001:db8::2")

    def touched(change: Change) -> tuple[bool, bool, bool]:
        found = store.apply([change])
        return bool(found.services), found.node, found.peers

    assert touched(at("n1", "192.0.2.1")) == (False, True, False)
    assert touched(two) == (False, False, True)
    assert touched(two) == (False, False, False)
    assert store.peers() == {parse("192.0.2.2"), parse("2001:db8::2")}
    assert store.apply([at("n2", "192.0.2.3")]).peers
    assert store.peers() == {parse("192.0.2.3")}
    assert store.apply([gone(two)]).peers
    assert store.peers() == set()


def test_refusals_follow_their_object() -> None:
    """They come, are replaced, and go, without touching a service whose content stays."""
    store = Store("n1")
    refused = (Refused("Service default/web", "spec.ports[1].port: 0"),)
    store.apply([service()._replace(refused=refused)])
    assert dict(store.refused) == {service().key: refused}
    assert set(store.apply([service()]).services) == set()
    assert dict(store.refused) == {}


def test_service_cidrs_are_one_set() -> None:
    """Objects may name the same prefix; it counts while one of them does. No plan is touched."""
    store = Store("n1")
    one, other = (parse_prefix(text) for text in ("10.96.0.0/16", "fd00::/112"))

    def apply(name: str, *cidrs: Prefix) -> bool:
        value = ServiceCIDR(name, cidrs) if cidrs else None
        touched = store.apply([Change(Key(Kind.SERVICE_CIDR, "", name), value)])
        assert (touched.services, touched.node) == ({}, False)
        return touched.cidrs

    assert apply("a", one, other)
    assert not apply("a", one, other)
    assert apply("b", one)
    assert apply("a")
    assert store.service_cidrs() == {one}
    assert apply("b")
    assert not apply("b")
    assert store.service_cidrs() == frozenset()


CHANGES = st.lists(
    st.one_of(
        st.builds(service, st.sampled_from([WEB, API]), st.integers(0, 1)),
        st.builds(sliced, st.sampled_from("ab"), st.sampled_from([WEB, API]), ready=st.booleans()),
        st.builds(gone, st.builds(service, st.sampled_from([WEB, API]))),
        st.builds(gone, st.builds(sliced, st.sampled_from("ab"))),
    ),
    max_size=12,
)


def view(store: Store) -> dict[ServiceName, object]:
    """What a planner can see of each service."""
    return {name: (store.service(name), store.slices(name)) for name in (WEB, API)}


@given(CHANGES, CHANGES)
def test_touched_holds_every_service_that_looks_different(
    first: list[Change], second: list[Change]
) -> None:
    """Nothing that has to be planned again is missed, and the last change of each object counts."""
    store = Store("n1")
    store.apply(first)
    before = view(store)
    touched = store.apply(second)
    after = view(store)
    assert {name for name in before if before[name] != after[name]} <= set(touched.services)
    fresh = Store("n1")
    fresh.apply({change.key: change for change in [*first, *second]}.values())
    assert view(fresh) == after
    assert set(store.apply(second[-1:]).services) == set()


def test_content_is_everything_but_names_and_time() -> None:
    """A field that is added to slices must be thought of in `same_content`."""
    fields = {field.name for field in msgspec.structs.fields(EndpointSlice)}
    assert fields == {
        "name",
        "service",
        "family",
        "ports",
        "endpoints",
        "pods",
        "pod_names",
        "trigger_time",
    }
