"""`tidegate plan DIR` on files of pods: what they ask of their node, and of services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from lb.cli import tidegate
from tests.bed.manifests import (
    Manifests,
    endpoint,
    endpoint_slice,
    host_port,
    node,
    pod,
    port,
    service,
    slice_port,
)  # fmt: skip

PODS = {"web-0": ("10.244.1.5", "n1"), "web-1": ("10.244.2.5", "n2")}


def plan(folder: Path, where: str, *more: str) -> Result:
    """For that node."""
    return CliRunner().invoke(tidegate, ["plan", str(folder), "--node-name", where, *more])


def written(folder: Path, **weights: str) -> None:
    """A service with both pods, of which web-0 asks for a port of its node; with such weights."""
    pods = [
        pod(
            name, node=at, addresses=[address], ports=[host_port(8088, 80)][: name == "web-0"],
            weight=weights.get(name.replace("-", "_")),
        )
        for name, (address, at) in PODS.items()
    ]  # fmt: skip
    ends = [endpoint(address, node=at, pod=name) for name, (address, at) in PODS.items()]
    part = endpoint_slice("web", endpoints=ends, ports=[slice_port(8080)])
    one = service("web", cluster_ips=["10.96.0.10"], ports=[port(80)])
    Manifests(folder).write("all.yaml", node("n1", addresses=["192.0.2.1"]), one, part, *pods)


def services(folder: Path, where: str) -> dict[str, Any]:
    """The rows, by the service's name."""
    found = json.loads(plan(folder, where, "-o", "json").output)["services"]
    return {row["name"]: row for row in found}


def test_weights_of_pods(tmp_path: Path) -> None:
    """On every node the same."""
    written(tmp_path, web_1="3")
    for where in ("n1", "n2"):
        done = plan(tmp_path, where)
        assert done.exit_code == 0, done.output
        assert "10.244.2.5:8080  ready  n2 -  weight 3" in done.output
        assert [one["weight"] for one in services(tmp_path, where)["web"]["backends"]] == [1, 3]


def test_a_weight_that_is_none(tmp_path: Path) -> None:
    """Exit 1 and a line with the pod; it counts as the others do."""
    written(tmp_path, web_0="heavy", web_1="2")
    done = plan(tmp_path, "n1")
    line = "Pod default/web-0: annotation tidegate.io/weight: 'heavy' is not a weight of 1 to 100"
    assert (done.exit_code, done.stderr.splitlines()) == (1, [line])
    assert "10.244.1.5:8080  ready  n1 -\n" in done.stdout


def test_host_ports(tmp_path: Path) -> None:
    """Of the pods of the node that is planned for, as an agent with manifests serves them."""
    written(tmp_path)
    assert services(tmp_path, "n1")["pod:web-0"]["frontends"] == [
        {"type": "HostPort", "address": "192.0.2.1", "port": 8088}
    ]
    assert "frontend node port 8088/TCP  HostPort" in plan(tmp_path, "n1").output
    assert services(tmp_path, "n2").keys() == {"web"}
