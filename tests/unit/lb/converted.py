"""What becomes of Kubernetes objects that are good but for a few fields, in few words."""

from __future__ import annotations

from typing import Any

from lb.address import Family
from lb.model import Change, EndpointSlice, Service
from lb.sources.convert import from_plain

Plain = dict[str, Any]
V4, V6 = Family.IPV4, Family.IPV6
PORTS = [{"name": "http", "port": 80}]
SERVICE_NAME = "kubernetes.io/service-name"


def service(spec: Plain | None = None, status: Plain | None = None, **metadata: Any) -> Change:
    """What becomes of a Service; `spec` is added to one that is good."""
    good = {"clusterIP": "10.96.0.1", "ports": PORTS}
    change = from_plain(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", **metadata},
            "spec": good | (spec or {}),
            "status": status,
        }
    )
    assert isinstance(change, Change)
    return change


def taken(change: Change) -> Service:
    """The service of a change that has one."""
    assert isinstance(change.value, Service), change.refused
    return change.value


def sliced(fields: Plain | None = None, **metadata: Any) -> Change:
    """What becomes of an EndpointSlice; `fields` are added to one that is good."""
    change = from_plain(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {SERVICE_NAME: "web"}, **metadata},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
            **(fields or {}),
        }
    )
    assert isinstance(change, Change)
    return change


def taken_slice(change: Change) -> EndpointSlice:
    """The slice of a change that has one."""
    assert isinstance(change.value, EndpointSlice), change.refused
    return change.value


def reasons(change: Change) -> list[str]:
    """What was left out."""
    return [one.reason for one in change.refused]
