"""Pods that a source delivers: whose an address is, and their own weights."""

from __future__ import annotations

from array import array
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lb.address import parse, show
from lb.hostports import service_name
from lb.model import Change, HostPort, Key, Kind, Pod, Protocol, ServiceName
from lb.plan import Here
from lb.pods import NOT_KNOWN_TO_ALL
from lb.store import Store
from tests.unit.lb.making import service, slice_of

HERE = Here("n1")
WEB, API = ServiceName("default", "web"), ServiceName("default", "api")


def pod(name: str, *addresses: str, namespace: str = "default", **fields: Any) -> Change:
    """A pod is there."""
    value = Pod(name, addresses=tuple(map(parse, addresses)), **fields)
    return Change(Key(Kind.POD, namespace, name), value)


def gone(name: str, namespace: str = "default") -> Change:
    """A pod is gone, or has ended."""
    return Change(Key(Kind.POD, namespace, name), None)


def served(name: str, cluster_ip: str, *pods: str, **fields: Any) -> list[Change]:
    """A service with an endpoint 10.0.0.N for the N-th of these pods; "": one of no pod."""
    one = service(name, cluster_ip, **fields)
    part = slice_of(name, *(str(number) for number, _ in enumerate(pods, 1)))
    numbers = array("I", [crc32(pod.encode()) if pod else 0 for pod in pods])
    part = replace(part, pods=numbers.tobytes(), pod_names="\n".join(pods))
    return [Change(Key(Kind.SERVICE, *one.name), one), Change(Key(Kind.SLICE, *part.name), part)]


def names(store: Store) -> dict[str, str]:
    """As the agent's door has it."""
    return {show(address): pod for address, pod in store.pods()}


def weights(store: Store, name: ServiceName = WEB) -> list[int]:
    """Of the backends of a service, in their order."""
    (found,) = store.plans(name, HERE)
    return [one.weight for one in found.backends]


def test_a_pod_without_a_service_has_a_name() -> None:
    """In both families, on whichever node, with all flags off; its changes are followed."""
    store = Store("n1")
    store.apply([pod("client", "10.244.1.7", "fd00::7", node="n1"), pod("far", "10.244.2.7")])
    assert names(store) == {
        "10.244.1.7": "default/client", "fd00::7": "default/client", "10.244.2.7": "default/far",
    }  # fmt: skip
    touched = store.apply([pod("client", "10.244.1.8"), gone("far"), gone("never")])
    assert names(store) == {"10.244.1.8": "default/client"}
    assert (touched.services, touched.families, touched.refused) == ({}, set(), [])


def test_a_pod_on_the_hosts_network_has_none() -> None:
    """Its address is the node's; also where it was another before."""
    store = Store("n1")
    store.apply([pod("client", "192.0.2.1", host_network=True), pod("other", "10.244.1.7")])
    assert names(store) == {"10.244.1.7": "default/other"}
    store.apply([pod("other", "10.244.1.7", host_network=True)])
    assert names(store) == {}


def test_slices_know_better() -> None:
    """An endpoint's name wins over a pod's of the same address, host ports or not."""
    store = Store("n1", host_ports=True)
    ports = (HostPort(8080, 80, Protocol.TCP),)
    store.apply(served("web", "10.96.0.10", "web-0"))
    store.apply([pod("old", "10.0.0.1", node="n1", host_ports=ports), pod("b", "10.0.0.2")])
    assert names(store) == {"10.0.0.1": "default/web-0", "10.0.0.2": "default/b"}
    assert service_name("default", "old") in store.names()


def test_a_weight_of_its_own() -> None:
    """Of the pods that a slice names, in the slice's namespace; by which services go anew."""
    store = Store("n1", pod_weights=True)
    store.apply(served("web", "10.96.0.10", "web-0", "web-1", ""))
    store.apply(served("api", "10.96.0.11", "api-0"))
    touched = store.apply([pod("web-1", weight=3), pod("web-0", namespace="other", weight=9)])
    assert touched.services == {WEB: Key(Kind.POD, "default", "web-1")}
    assert len(touched.families) == 1
    assert (weights(store), weights(store, API)) == ([1, 3, 1], [1])
    assert store.apply([pod("web-1", "10.0.0.2", weight=3)]).services == {}
    assert store.apply([pod("web-1", weight=2)]).services.keys() == {WEB}
    assert weights(store) == [1, 2, 1]
    assert store.apply([pod("web-1")]).services.keys() == {WEB}
    store.apply([pod("web-1", weight=2)])
    assert store.apply([gone("web-1")]).services.keys() == {WEB}
    assert weights(store) == [1, 1, 1]


def test_the_services_list_wins() -> None:
    """By pod or by address, even where it says 1; whom it does not name keeps its own."""
    store = Store("n1", pod_weights=True)
    listed = {crc32(b"web-0"): 1, parse("10.0.0.2"): 2}
    store.apply(served("web", "10.96.0.10", "web-0", "web-1", "web-2", weights=listed))
    store.apply([pod(f"web-{number}", weight=7) for number in range(3)])
    assert weights(store) == [1, 2, 7]
    assert store.service(WEB).weights == listed  # type: ignore[union-attr]


def test_where_nodes_know_different_pods_none_counts() -> None:
    """With an API server: it is told, once, and until the annotation goes."""
    store = Store("n1")
    store.apply(served("web", "10.96.0.10", "web-0"))
    touched = store.apply([pod("web-0", weight=3)])
    assert (touched.services, weights(store)) == ({}, [1])
    (told,) = touched.refused
    assert (told.subject, told.reason, told.wrong) == ("Pod default/web-0", NOT_KNOWN_TO_ALL, True)
    assert store.apply([pod("web-0", "10.0.0.1", weight=4)]).refused == []
    assert store.all_refused() == [told]
    store.apply([pod("web-0")])
    assert store.all_refused() == []


@pytest.mark.parametrize("name", ["web-0", "another"])
def test_a_slice_may_come_after_its_pods(name: str) -> None:
    """As most do at a start."""
    store = Store("n1", pod_weights=True)
    store.apply([pod("web-0", weight=3), *served("web", "10.96.0.10", name)])
    assert weights(store) == [3 if name == "web-0" else 1]


SERVED = [served("web", "10.96.0.10", "a", "b", weights={crc32(b"b"): 2}),
          served("api", "10.96.0.11", "b", "", "c")]  # fmt: skip
CHANGES = st.lists(
    st.one_of(
        st.builds(pod, st.sampled_from("abc"), weight=st.integers(0, 3)),
        st.builds(gone, st.sampled_from("abc")),
        st.sampled_from([change for both in SERVED for change in both]).map(
            lambda change: change._replace(value=None)
        ),
        st.sampled_from([change for both in SERVED for change in both]),
    ),
    max_size=12,
)


@given(st.lists(CHANGES, max_size=4))
def test_what_a_batch_touches_is_enough(batches: list[list[Change]]) -> None:
    """Plans made anew of touched services alone are those of a store that saw only the end."""
    store, made = Store("n1", pod_weights=True), {}
    last: dict[Key, Change] = {}
    for batch in batches:
        for name in store.apply(batch).services:
            made[name] = store.plans(name, HERE)
        last |= {change.key: change for change in batch}
    fresh = Store("n1", pod_weights=True)
    fresh.apply(last.values())
    assert {name: plans for name, plans in made.items() if plans} == {
        name: fresh.plans(name, HERE) for name in fresh.names()
    }
