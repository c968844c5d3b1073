"""What the metrics port answers beside the metrics: kube-proxy's paths. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lb.serving.answer import JSON, NOT_FOUND, Answer, Response

DEFAULT_MODE = "iptables"
"""What kube-proxy calls a mode that nobody chose."""
METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""The Prometheus text format; kube-proxy speaks no other."""
GROUP, VERSION = "kubeproxy.config.k8s.io", "v1alpha1"


def metrics_port(
    scrape: Callable[[], bytes], mode: str, configuration: Callable[[], Mapping[str, Any]]
) -> Answer:
    """The answers of port 10249. `configuration` gives the fields of a KubeProxyConfiguration.

    `mode` is the word of the configuration: tools ask for it and know three.
    """

    def configz() -> Response:
        head = {"kind": "KubeProxyConfiguration", "apiVersion": f"{GROUP}/{VERSION}"}
        return Response(json.dumps({GROUP: head | dict(configuration())}).encode(), type=JSON)

    pages: dict[str, Callable[[], Response]] = {
        "/healthz": lambda: Response(b"ok"),
        "/proxyMode": lambda: Response((mode or DEFAULT_MODE).encode()),
        "/metrics": lambda: Response(scrape(), type=METRICS),
        "/configz": configz,
    }
    return lambda path: pages.get(path, lambda: NOT_FOUND)()
