"""What the metrics port answers beside metrics: what tools for kube-proxy ask for."""

from __future__ import annotations

import json

import pytest

from lb.serving.answer import NOT_FOUND, Response
from lb.serving.pages import metrics_port

PORT = metrics_port(lambda: b"a 1\n", "nftables", {"kind": "KubeProxyConfiguration"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/healthz", Response(b"ok", 200, "text/plain; charset=utf-8")),
        ("/proxyMode", Response(b"nftables", 200, "text/plain; charset=utf-8")),
        ("/metrics", Response(b"a 1\n", 200, "text/plain; version=0.0.4; charset=utf-8")),
        ("/", NOT_FOUND),
        ("/metrics/", NOT_FOUND),
        ("/metrics/slis", NOT_FOUND),
        ("/debug/pprof/", NOT_FOUND),
    ],
)
def test_paths(path: str, expected: Response) -> None:
    """Code, type and body."""
    assert PORT(path) == expected


def test_a_mode_that_nobody_chose_is_called_iptables() -> None:
    """As kube-proxy names its default."""
    assert metrics_port(bytes, "", {})("/proxyMode").body == b"iptables"


def test_the_configuration_stands_under_its_group() -> None:
    """As Kubernetes' components show theirs."""
    response = PORT("/configz")
    assert response.type == "application/json"
    assert json.loads(response.body) == {
        "kubeproxy.config.k8s.io": {"kind": "KubeProxyConfiguration"}
    }
