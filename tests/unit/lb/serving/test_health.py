"""Golden answers of the health port and of health check node ports: what load balancers read."""

from __future__ import annotations

import json

import pytest

from lb.model import ServiceName
from lb.progress import Health
from lb.serving.answer import Response
from lb.serving.health import health_port, proxy, service

NOW, BEFORE = 1763740800.5, 1763740000.25
_NOW, _BEFORE = "2025-11-21T16:00:00.500000Z", "2025-11-21T15:46:40.250000Z"


_GOOD = f'"status":{{"IPv4":{{"lastUpdated":"{_BEFORE}","healthy":true}},"IPv6":{{"lastUpdated":"{_BEFORE}","healthy":true}}}}'  # noqa: E501
_BAD = _GOOD.replace("true", "false")
_AT_NOW = f'{{"lastUpdated":"{_NOW}","currentTime":"{_NOW}",'
_AT_BEFORE = f'{{"lastUpdated":"{_BEFORE}","currentTime":"{_NOW}",'
_AT_NEVER = f'{{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"{_NOW}",'
WELL, LATE = Health(healthy=True, updated=BEFORE), Health(healthy=False, updated=BEFORE)
NEW = Health(healthy=True, updated=None)

ROWS = {
    "all is well: the last update is now": (
        WELL, True, 200, f'{_AT_NOW}"nodeEligible":true,"healthy":true,{_GOOD}}}',
    ),
    "the node is about to go: nothing is wrong with the agent": (
        WELL, False, 503, f'{_AT_BEFORE}"nodeEligible":false,"healthy":true,{_GOOD}}}',
    ),
    "changes wait for too long": (
        LATE, True, 503, f'{_AT_BEFORE}"nodeEligible":true,"healthy":false,{_BAD}}}',
    ),
    "nothing was applied yet": (
        NEW, True, 200, f'{_AT_NOW}"nodeEligible":true,"healthy":true}}',
    ),
    "nothing was applied yet, and the node is not known": (
        NEW, False, 503, f'{_AT_NEVER}"nodeEligible":false,"healthy":true}}',
    ),
    "livez says nothing of the node": (
        WELL, None, 200, f'{_AT_NOW}"healthy":true,{_GOOD}}}',
    ),
    "livez fails with the agent": (
        LATE, None, 503, f'{_AT_BEFORE}"healthy":false,{_BAD}}}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_health_is_told_in_kube_proxys_words(row: str) -> None:
    """Code, type and body, to the letter."""
    health, eligible, code, body = ROWS[row]
    expected = Response(body.encode(), code, "application/json")
    assert proxy(health, NOW, eligible=eligible) == expected


def test_the_health_port_has_two_paths_and_counts_them() -> None:
    """Only `/healthz` looks at the node; other paths are not found, and not counted."""
    counted: list[tuple[str, int]] = []
    answer = health_port(
        lambda: Health(healthy=True, updated=BEFORE),
        lambda: False,
        lambda: NOW,
        lambda path, code: counted.append((path, code)),
    )
    codes = [answer(path).code for path in ("/healthz", "/livez", "/", "/healthz/", "/metrics")]
    assert codes == [503, 200, 404, 404, 404]
    assert counted == [("/healthz", 503), ("/livez", 200)]


CHECK = """{
	"service": {
		"namespace": "default",
		"name": "wp-nginx-service"
	},
	"localEndpoints": 1,
	"serviceProxyHealthy": true
}"""


def test_a_health_check_is_told_in_kube_proxys_words() -> None:
    """Tabs and all: 127 bytes, as a real kube-proxy sent them."""
    response = service(ServiceName("default", "wp-nginx-service"), 1, healthy=True)
    weight = (("X-Load-Balancing-Endpoint-Weight", "1"),)
    assert response == Response(CHECK.encode(), 200, "application/json", weight)
    assert len(response.body) == 127


@pytest.mark.parametrize(
    "row", [(0, True, 503), (1, True, 200), (7, True, 200), (0, False, 503), (7, False, 503)]
)
def test_a_health_check_is_good_with_endpoints_and_health(row: tuple[int, bool, int]) -> None:
    """Both are needed; the weight is the count either way."""
    count, healthy, code = row
    response = service(ServiceName("default", "web"), count, healthy=healthy)
    assert response.code == code
    assert response.headers == (("X-Load-Balancing-Endpoint-Weight", str(count)),)
    body = json.loads(response.body)
    assert (body["localEndpoints"], body["serviceProxyHealthy"]) == (count, healthy)
