"""What a source on an API server delivers, and when, while all is well."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lb.address import parse, parse_prefix
from lb.model import EndpointSlice, Key, Kind, Node, Service, ServiceCIDR
from lb.sources.kubernetes import KubernetesSource
from lb.sources.reflector import PAGE
from tests.bed.apiserver import ApiServer
from tests.bed.manifests import (
    Manifest,
    endpoint,
    endpoint_slice,
    node,
    port,
    service,
    slice_port,
)
from tests.unit.lb.conftest import QUICK, Recorder, Start


def web(name: str = "web", ip: str = "10.96.0.10", **more: object) -> Manifest:
    """A service of one port."""
    return service(name, cluster_ips=[ip], ports=[port(80)], **more)  # type: ignore[arg-type]


def slices(name: str, *addresses: str, family: str = "IPv4") -> Manifest:
    """The slice of a service."""
    return endpoint_slice(
        name,
        endpoints=[endpoint(address) for address in addresses],
        ports=[slice_port(8080)],
        family=family,
    )


def test_first_state_is_complete_before_it_is_called_so(api: ApiServer, start: Start) -> None:
    """Services, slices of both families and the own Node come first; `synced` comes once."""
    api.store.put(web(), slices("web", "10.244.1.1"), slices("web", "fd00::1", family="IPv6"))
    api.store.put(node("n1", addresses=["192.0.2.1"], zone="a"), node("n2"))
    inbox = start()
    api.store.put(web("late", "10.96.0.11"))
    inbox.until(lambda: "late" in inbox.names())
    assert inbox.synced_after == [4]
    held = inbox.held()
    found = held[Key(Kind.SERVICE, "default", "web")]
    assert isinstance(found, Service)
    assert set(found.cluster_ips.values()) == {parse("10.96.0.10")}
    assert inbox.names(Kind.SLICE) == {"web-ipv4", "web-ipv6"}
    ipv6 = held[Key(Kind.SLICE, "default", "web-ipv6")]
    assert isinstance(ipv6, EndpointSlice)
    assert ipv6.endpoints[0].address == parse("fd00::1")
    own = held[Key(Kind.NODE, "", "n1")]
    assert isinstance(own, Node)
    assert (own.zone, inbox.names(Kind.NODE)) == ("a", {"n1"})


def test_asks_for_what_kube_proxy_asks_for(api: ApiServer, start: Start) -> None:
    """Lists and watches carry the selectors; watches ask for bookmarks and end by themselves."""
    start()
    api.store.put(node("n1"))
    wanted = {
        "services": ("!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"),
        "endpointslices": ("!service.kubernetes.io/headless", ""),
        "nodes": ("", "metadata.name=n1"),
        "servicecidrs": ("", ""),
    }
    for request in api.requests:
        labels, fields = wanted[request.resource]
        assert request.query.get("labelSelector", "") == labels
        assert request.query.get("fieldSelector", "") == fields
        if request.watch:
            assert request.query["allowWatchBookmarks"] == "true"
            assert 300 <= int(request.query["timeoutSeconds"]) <= 600
        else:
            assert request.query["limit"] == str(PAGE)


def service_cidr(name: str, *cidrs: str) -> Manifest:
    """A ServiceCIDR."""
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name}, "spec": {"cidrs": list(cidrs)},
    }  # fmt: skip


def test_service_cidrs_follow(api: ApiServer, start: Start) -> None:
    """They are part of the first full state, and change like all else; a bad one is told."""
    api.store.put(service_cidr("kubernetes", "10.96.0.0/16", "fd00::/112"))
    inbox = start()
    key = Key(Kind.SERVICE_CIDR, "", "kubernetes")
    both = (parse_prefix("10.96.0.0/16"), parse_prefix("fd00::/112"))
    assert inbox.held()[key] == ServiceCIDR("kubernetes", both)
    api.store.put(service_cidr("kubernetes", "10.96.0.0/33", "fd00::/112"))
    inbox.until(lambda: inbox.held()[key] == ServiceCIDR("kubernetes", both[1:]))


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_without_service_cidrs(api: ApiServer, start: Start, status: int) -> None:
    """Before Kubernetes 1.33 there are none, and no right to ask: that is no fault."""
    api.refuse(status, "servicecidrs", times=1_000_000)
    api.store.put(node("n1"))
    inbox = start()
    assert inbox.synced_after
    assert not inbox.report_now.error


def test_goes_on_without_a_selector_that_the_server_does_not_know(
    api: ApiServer, start: Start
) -> None:
    """An older server refuses the field selector; headless services are then left out here."""
    api.refused_selectors.add("spec.clusterIP!=None")
    api.store.put(web(), web("headless", "None"))
    inbox = start()
    assert inbox.names() == {"web"}
    assert not inbox.report_now.error


def test_long_lists_come_page_by_page(api: ApiServer, start: Start) -> None:
    """Each page is delivered by itself, and nothing of it is lost or comes twice."""
    count = 2 * PAGE + 1
    api.store.put(*[web(f"s{i}", f"10.96.{i // 250}.{i % 250 + 1}") for i in range(count)])
    inbox = start()
    assert sorted(inbox.names()) == sorted(f"s{i}" for i in range(count))
    assert len(inbox.changes) == count
    assert [len(batch) for batch in inbox.batches] == [PAGE, PAGE, 1]


def test_changes_follow(api: ApiServer, start: Start) -> None:
    """An addition, a change, a removal, and a label that hides, each without a new list."""
    inbox = start()
    api.store.put(web(), slices("web", "10.244.1.1"), web("gone", "10.96.0.11"))
    inbox.until(lambda: inbox.names() == {"web", "gone"} and bool(inbox.names(Kind.SLICE)))
    api.store.put(slices("web", "10.244.1.1", "10.244.1.2"))
    key = Key(Kind.SLICE, "default", "web-ipv4")
    inbox.until(lambda: len(getattr(inbox.held()[key], "endpoints", ())) == 2)
    api.store.delete("Service", "gone")
    inbox.until(lambda: inbox.names() == {"web"})
    api.store.put(web(labels={"service.kubernetes.io/service-proxy-name": ""}))
    inbox.until(lambda: not inbox.names())
    api.store.put(web())
    inbox.until(lambda: inbox.names() == {"web"})
    api.store.delete("EndpointSlice", "web-ipv4")
    inbox.until(lambda: not inbox.names(Kind.SLICE))
    assert api.count("services", watch=False) == 1


def test_a_flood_comes_in_batches(api: ApiServer, start: Start) -> None:
    """Thousands of events are few deliveries, in order."""
    inbox = start()
    before = len(inbox.batches)
    api.store.put(*[web(f"s{i}", f"10.96.{i // 250}.{i % 250 + 1}") for i in range(3000)])
    inbox.until(lambda: len(inbox.changes) == 3000)
    assert [change.key.name for change in inbox.changes] == [f"s{i}" for i in range(3000)]
    assert len(inbox.batches) - before < 300


def test_an_object_of_a_megabyte(api: ApiServer, start: Start) -> None:
    """Its size harms nothing, in a list and in a watch."""
    api.store.put(web(annotations={"big": "x" * 1_000_000}))
    inbox = start()
    api.store.put(web("second", "10.96.0.11", annotations={"big": "y" * 1_000_000}))
    inbox.until(lambda: inbox.names() == {"web", "second"})


def test_an_unchanged_bookmark_moves_on(api: ApiServer, start: Start) -> None:
    """After a bookmark a watch goes on from there, although it saw no event."""
    inbox = start()
    api.store.put(web())
    inbox.until(lambda: inbox.names() == {"web"})
    api.store.expire()
    api.bookmark("endpointslices")
    api.end("endpointslices")
    inbox.until(lambda: api.count("endpointslices", watch=True) == 2)
    api.store.put(slices("web", "10.244.1.1"))
    inbox.until(lambda: bool(inbox.names(Kind.SLICE)))
    assert api.count("endpointslices", watch=False) == 1


@pytest.mark.parametrize("resource", ["services", "endpointslices"])
def test_not_synced_before_both_lists_are_in(api: ApiServer, start: Start, resource: str) -> None:
    """One of the two alone is no full state, however long it takes."""
    api.refuse(500, resource, times=1_000_000)
    inbox = start(synced=False)
    inbox.until(lambda: api.count(resource, watch=False) >= 5)
    assert not inbox.synced_after
    api.refusals.clear()
    inbox.until(lambda: len(inbox.synced_after) == 1)


def test_the_node_is_waited_for_but_not_for_ever(api: ApiServer, start: Start) -> None:
    """A server that does not show the Node delays the first state by `node` seconds and no more."""
    api.refuse(403, "nodes", times=1_000_000)
    begin = time.monotonic()
    inbox = start()
    assert QUICK.node <= time.monotonic() - begin
    assert "node: 403" in inbox.report_now.error
    assert inbox.synced_after == [0]


@pytest.mark.parametrize("refused", [0, 1_000_000])
def test_stop_ends_promptly(api: ApiServer, tmp_path: Path, refused: int) -> None:
    """While it watches, and while it waits to try again."""
    api.refuse(500, times=refused)
    path = api.kubeconfig(tmp_path / "kubeconfig")
    timing = QUICK._replace(first_pause=60.0, longest_pause=60.0)
    source = KubernetesSource(kubeconfig=str(path), master="", node_name="n1", timing=timing)
    inbox, stop = Recorder(), threading.Event()
    thread = threading.Thread(target=source.run, args=(inbox, stop))
    thread.start()
    inbox.until(lambda: api.watched("services") or bool(inbox.report_now.error))
    stop.set()
    thread.join(0.9)
    assert not thread.is_alive()
