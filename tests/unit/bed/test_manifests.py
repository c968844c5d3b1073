"""What the bed writes is what Kubernetes would have, and never half of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.bed.manifests import (
    Manifests,
    endpoint,
    endpoint_slice,
    ingress,
    node,
    port,
    service,
    slice_port,
)

FULL = service(
    "web",
    cluster_ips=["10.96.0.10", "fd00:10:96::a"],
    ports=[port(80, name="http", node_port=30080), port(53, name="dns", protocol="UDP")],
    kind="LoadBalancer",
    external_ips=["203.0.113.5"],
    load_balancer=[ingress("203.0.113.10"), ingress("2001:db8::10", "Proxy")],
    internal_policy="Local",
    external_policy="Local",
    affinity_seconds=60,
    source_ranges=["198.51.100.0/24"],
    health_check_node_port=32000,
    annotations={"tidegate.io/algorithm": "random"},
)
SLICE = endpoint_slice(
    "web",
    family="IPv6",
    ports=[slice_port(8080, name="http")],
    endpoints=[
        endpoint("fd00::1", node="n1", zone="a", zone_hints=["a"], node_hints=["n1"]),
        endpoint("fd00::2", ready=False, serving=True, terminating=True),
    ],
)


def test_service() -> None:
    """Every field stands where Kubernetes has it; families follow the cluster addresses."""
    spec = FULL["spec"]
    assert spec["clusterIP"] == "10.96.0.10"
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert spec["ports"][0] == {"port": 80, "name": "http", "protocol": "TCP", "nodePort": 30080}
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 60}}
    assert FULL["status"]["loadBalancer"]["ingress"] == [
        {"ip": "203.0.113.10"},
        {"ip": "2001:db8::10", "ipMode": "Proxy"},
    ]


def test_what_is_not_given_is_left_out() -> None:
    """Defaults are the product's business."""
    plain = service("web", cluster_ips=["10.96.0.10"], ports=[port(80)])
    assert set(plain["spec"]) == {"clusterIP", "clusterIPs", "ipFamilies", "ports"}
    assert endpoint("10.244.1.10") == {"addresses": ["10.244.1.10"]}


def test_slice() -> None:
    """Conditions, hints and the link to the service."""
    assert SLICE["metadata"]["labels"] == {"kubernetes.io/service-name": "web"}
    assert SLICE["endpoints"][0]["hints"] == {
        "forZones": [{"name": "a"}],
        "forNodes": [{"name": "n1"}],
    }
    assert SLICE["endpoints"][1]["conditions"] == {
        "ready": False,
        "serving": True,
        "terminating": True,
    }


@pytest.mark.parametrize("name", ["all.yaml", "all.json"])
def test_files_hold_what_was_written(tmp_path: Path, name: str) -> None:
    """Objects come back from YAML and JSON as they were, and go when they are removed."""
    manifests = Manifests(tmp_path)
    objects = [FULL, SLICE, node("n1", addresses=["192.168.77.11"], zone="a")]
    text = manifests.write(name, *objects).read_text()
    read = json.loads(text)["items"] if name.endswith("json") else list(yaml.safe_load_all(text))
    assert read == objects
    assert [path.name for path in tmp_path.iterdir()] == [name]
    manifests.remove(name)
    assert list(tmp_path.iterdir()) == []
