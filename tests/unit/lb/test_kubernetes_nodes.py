"""Which Nodes a source on an API server follows: all of them only if somebody needs them."""

from __future__ import annotations

import pytest

from lb.model import ALL_NODES, Kind
from tests.bed.apiroles import NODE_PROXIER
from tests.bed.apiserver import ApiServer
from tests.bed.manifests import Manifest, node, port, service
from tests.unit.lb.conftest import Recorder, Start

OWN, OTHERS = "metadata.name=n1", "metadata.name!=n1"


def web(forwarding: str | None) -> Manifest:
    """A service, with that annotation."""
    annotations = {} if forwarding is None else {"tidegate.io/forwarding": forwarding}
    return service("web", cluster_ips=["10.96.0.10"], ports=[port(80)], annotations=annotations)


def asked(api: ApiServer) -> set[str]:
    """The selectors by which nodes were asked for."""
    found = [one for one in api.requests if one.resource == "nodes"]
    return {one.query.get("fieldSelector", "") for one in found}


def known_before(inbox: Recorder) -> list[str]:
    """The names of the Nodes that were delivered before it was said that these are all."""
    changes = inbox.changes[: inbox.changes.index(ALL_NODES)]
    return sorted(change.key.name for change in changes if change.key.kind is Kind.NODE)


@pytest.mark.parametrize("forwarding", [None, "snat", "nonsense"])
def test_nobody_needs_them(api: ApiServer, start: Start, forwarding: str | None) -> None:
    """Only the own one is asked for, as kube-proxy does."""
    api.store.put(node("n1"), node("n2"), web(forwarding))
    inbox = start()
    assert inbox.names(Kind.NODE) == {"n1"}
    assert asked(api) == {OWN}
    assert ALL_NODES not in inbox.changes


def test_the_flag_needs_them(api: ApiServer, start: Start) -> None:
    """All are known before the first state is called complete."""
    api.store.put(node("n1"), node("n2"), node("n3"))
    inbox = start(all_nodes=True)
    assert known_before(inbox)[-2:] == ["n2", "n3"]
    assert inbox.changes.index(ALL_NODES) < inbox.synced_after[0]
    assert asked(api) == {OWN, OTHERS}


@pytest.mark.parametrize("forwarding", ["dsr", "hybrid"])
def test_a_service_of_the_first_list_needs_them(
    api: ApiServer, start: Start, forwarding: str
) -> None:
    """A restart: nothing that other nodes hand over is turned away for want of their addresses."""
    api.store.put(node("n1"), node("n2"), node("n3"), web(forwarding))
    inbox = start()
    assert known_before(inbox)[-2:] == ["n2", "n3"]
    assert inbox.changes.index(ALL_NODES) < inbox.synced_after[0]


def test_a_later_service_needs_them(api: ApiServer, start: Start) -> None:
    """They are listed once, and followed from then on, whatever becomes of the service."""
    api.store.put(node("n1"), node("n2"), web(None))
    inbox = start()
    assert asked(api) == {OWN}
    api.store.put(web("dsr"))
    inbox.until(lambda: ALL_NODES in inbox.changes)
    assert known_before(inbox) == ["n1", "n2"]
    api.store.put(web("snat"), node("n3"))
    inbox.until(lambda: inbox.names(Kind.NODE) == {"n1", "n2", "n3"})
    api.store.put(web("hybrid"))
    api.store.delete("Node", "n2")
    inbox.until(lambda: inbox.names(Kind.NODE) == {"n1", "n3"})
    lists = [one for one in api.requests if one.resource == "nodes" and not one.watch]
    assert sorted(one.query["fieldSelector"] for one in lists) == [OTHERS, OWN]


def test_nodes_that_may_not_be_read_keep_no_service_waiting(api: ApiServer, start: Start) -> None:
    """An account with fewer rights: the fault is told, SNAT serves until they come."""
    api.rules = {what: may for what, may in NODE_PROXIER.items() if what != ("", "nodes")}
    api.store.put(node("n2"), web("dsr"))
    inbox = start()
    inbox.until(lambda: "nodes: 403" in inbox.report_now.error)
    assert ALL_NODES not in inbox.changes
    api.rules = NODE_PROXIER
    inbox.until(lambda: ALL_NODES in inbox.changes and not inbox.report_now.error)
