"""What a client of the stand-in API server may do: rules as of RBAC, and the verb of a request.

`NODE_PROXIER` is the whole of the role `system:node-proxier`, as bootstrapped by Kubernetes
(plugin/pkg/auth/authorizer/rbac/bootstrappolicy): who replaces kube-proxy gets no more.
"""

from __future__ import annotations

from collections.abc import Mapping

Rules = Mapping[tuple[str, str], frozenset[str]]
"""Verbs by API group and resource; the core group is empty."""

_READ = frozenset({"list", "watch"})
NODE_PROXIER: Rules = {
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("", "nodes"): frozenset({"get", "list", "watch"}),
    ("", "events"): frozenset({"create", "patch", "update"}),
    ("events.k8s.io", "events"): frozenset({"create", "patch", "update"}),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("networking.k8s.io", "servicecidrs"): _READ,
}
POD_READER: Rules = {("", "pods"): _READ}
"""A role of its own, for those who switch bandwidth limits on."""

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def asked(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str, str]:
    """API group, resource and verb of a request."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3 if group else 2 :]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if method != "GET":
        return group, rest[0], _VERBS.get(method, method)
    verb = "get" if len(rest) > 1 else "watch" if query.get("watch") == "true" else "list"
    return group, rest[0], verb


def allowed(rules: Rules, method: str, path: str, query: Mapping[str, str]) -> bool:
    """May it?"""
    group, resource, verb = asked(method, path, query)
    return verb in rules.get((group, resource), ())
