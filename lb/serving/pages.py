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
GROUP = "kubeproxy.config.k8s.io"


def metrics_port(
    scrape: Callable[[], bytes], mode: str, configuration: Mapping[str, Any]
) -> Answer:
    """The answers of port 10249. `configuration` is the KubeProxyConfiguration in force.

    `mode` is the word of the configuration: tools ask for it and know three.
    """
    pages: dict[str, Callable[[], Response]] = {
        "/healthz": lambda: Response(b"ok"),
        "/proxyMode": lambda: Response((mode or DEFAULT_MODE).encode()),
        "/metrics": lambda: Response(scrape(), type=METRICS),
        "/configz": lambda: Response(json.dumps({GROUP: configuration}).encode(), type=JSON),
    }
    return lambda path: pages.get(path, lambda: NOT_FOUND)()
