"""Pods from an API server: only this node's, and no limit goes before all of them are known."""

from __future__ import annotations

from lb.address import parse
from lb.model import ALL_PODS, Key, Kind, Pod
from tests.bed.apiroles import NODE_PROXIER, POD_READER
from tests.bed.apiserver import ApiServer
from tests.bed.manifests import pod
from tests.unit.lb.conftest import Start

ROLE = {**NODE_PROXIER, **POD_READER}
WEB = Key(Kind.POD, "default", "web")


def test_pods_of_this_node_are_followed(api: ApiServer, start: Start) -> None:
    """By a field selector, with their annotations as they are; until they are gone."""
    api.rules = ROLE
    api.store.put(pod("web", node="n1", addresses=["10.244.1.5", "fd00::5"], egress="10M"))
    api.store.put(pod("far", node="n2", egress="10M"))
    inbox = start(pods=True)
    inbox.until(lambda: ALL_PODS in inbox.changes)
    assert inbox.held() == {
        WEB: Pod("web", "n1", (parse("10.244.1.5"), parse("fd00::5")), egress="10M")
    }
    api.store.put(pod("web", node="n1", egress="20M"))
    inbox.until(lambda: inbox.held().get(WEB) == Pod("web", "n1", egress="20M"))
    api.store.delete("Pod", "web")
    inbox.until(lambda: not inbox.held())


def test_pods_that_may_not_be_read_keep_no_service_waiting(api: ApiServer, start: Start) -> None:
    """kube-proxy's own account: the node serves, no fault is told, nor that the pods are there."""
    api.rules = NODE_PROXIER
    inbox = start(pods=True)
    assert len(inbox.synced_after) == 1
    inbox.until(lambda: api.count("pods", watch=False) > 1)
    assert inbox.report_now.error == ""
    assert ALL_PODS not in inbox.changes


def test_host_ports_that_may_not_be_read_are_a_fault(api: ApiServer, start: Start) -> None:
    """Who asked for them is told; services are served all the same."""
    api.rules = NODE_PROXIER
    inbox = start(pods=True, host_ports=True)
    assert len(inbox.synced_after) == 1
    inbox.until(lambda: "pods: 403" in inbox.report_now.error)
    api.rules = ROLE
    inbox.until(lambda: ALL_PODS in inbox.changes and not inbox.report_now.error)


def test_without_limits_no_pod_is_asked_for(api: ApiServer, start: Start) -> None:
    """`--bandwidth off` costs nobody a watch."""
    api.store.put(pod("web", node="n1", egress="10M"))
    inbox = start()
    assert inbox.held() == {}
    assert api.count("pods", watch=False) == 0


def test_a_malformed_annotation_is_noted_and_kept(api: ApiServer, start: Start) -> None:
    """The object is taken; what its limit is then, is decided where the last one is known."""
    api.rules = ROLE
    api.store.put(pod("web", node="n1", egress="fast"))
    inbox = start(pods=True)
    inbox.until(lambda: bool(inbox.held()))
    (refused,) = next(change.refused for change in inbox.changes if change.key == WEB)
    assert refused.reason.startswith("kubernetes.io/egress-bandwidth: 'fast' is no quantity")
    assert inbox.held()[WEB] == Pod("web", "n1", egress="fast")
