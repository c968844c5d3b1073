"""What is answered to those who ask after health: kube-proxy's words, codes and headers. Pure.

`/healthz` is for load balancers: it fails when the node is about to go, so that they leave it in
time (KEP-3836). `/livez` is for whoever would restart the agent. A health check node port tells a
load balancer whether a Local service has endpoints here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lb.address import Family
from lb.model import ServiceName
from lb.progress import Health
from lb.serving.answer import JSON, NOT_FOUND, Answer, Response

NEVER = "0001-01-01T00:00:00Z"
"""How Kubernetes writes the time of what did not happen yet."""
OK, UNAVAILABLE = 200, 503


def stamp(seconds: float | None) -> str:
    """RFC 3339 in UTC; `seconds` since the epoch."""
    if seconds is None:
        return NEVER
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def proxy(health: Health, now: float, *, eligible: bool | None) -> Response:
    """`/healthz`, and `/livez` with `eligible` None. `now` in seconds since the epoch."""
    good = health.healthy and eligible is not False
    body: dict[str, Any] = {"lastUpdated": stamp(now if good else health.updated)}
    body["currentTime"] = stamp(now)
    if eligible is not None:
        body["nodeEligible"] = eligible
    body["healthy"] = health.healthy
    if health.updated is not None:
        one = {"lastUpdated": stamp(health.updated), "healthy": health.healthy}
        body["status"] = {family.label: one for family in Family}
    raw = json.dumps(body, separators=(",", ":")).encode()
    return Response(raw, OK if good else UNAVAILABLE, JSON)


def service(name: ServiceName, count: int, *, healthy: bool) -> Response:
    """A health check node port; `count` of ready endpoints on this node."""
    body = {
        "service": {"namespace": name.namespace, "name": name.name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    return Response(
        json.dumps(body, indent="\t").encode(),
        OK if count and healthy else UNAVAILABLE,
        JSON,
        (("X-Load-Balancing-Endpoint-Weight", str(count)),),
    )


def health_port(
    health: Callable[[], Health],
    eligible: Callable[[], bool],
    wall: Callable[[], float],
    counted: Callable[[str, int], None],
) -> Answer:
    """The answers of port 10256. `counted` is told each path and code."""

    def answer(path: str) -> Response:
        if path not in ("/healthz", "/livez"):
            return NOT_FOUND
        asked = eligible() if path == "/healthz" else None
        response = proxy(health(), wall(), eligible=asked)
        counted(path, response.code)
        return response

    return answer
