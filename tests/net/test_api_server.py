"""A real agent that follows an API server on the wire, whose death is no event for traffic."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Agent, BedError, Cluster, Manifests, Outcome, Process, curl, until
from tests.bed.apievents import LIST
from tests.bed.manifests import (
    endpoint,
    endpoint_slice,
    host_port,
    node,
    pod,
    port,
    service,
    slice_port,
)
from tests.net.witness import witnessed

PORT = 6443
ADDRESS, OTHER, THIRD = "10.96.0.10", "10.96.0.11", "10.96.0.12"


class Api:
    """The stand-in as a program outside of the cluster; it follows a directory of manifests."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._host = cluster.client
        self._folder = folder
        self.manifests = Manifests(folder / "manifests")
        self.kubeconfig = folder / "kubeconfig"
        self.process: Process | None = None

    def start(self, *flags: str) -> None:
        """Return once it listens, with all its objects."""
        self.kubeconfig.unlink(missing_ok=True)
        self.process = self._host.spawn(
            sys.executable, "-m", "tests.bed.apiserver", "--address", self._host.ipv4,
            "--port", str(PORT), "--manifests", str(self.manifests.directory),
            "--folder", str(self._folder), *flags, ready=lambda _: self.kubeconfig.exists(),
        )  # fmt: skip

    def kill(self) -> None:
        """As a machine goes down: no farewell."""
        assert self.process is not None
        self.process.end(signal.SIGKILL)


@pytest.fixture
def api(one_node: Cluster, tmp_path: Path) -> Iterator[Api]:
    """A server with the service `web` on pod web-0, and the Node."""
    api = Api(one_node, tmp_path)
    api.manifests.write("web.yaml", *web(one_node, "web", ADDRESS))
    api.manifests.write("node.yaml", node("n1", addresses=one_node.nodes[0].addresses, zone="a"))
    api.start()
    yield api
    api.kill()


@pytest.fixture
def agent(one_node: Cluster, api: Api) -> Iterator[Agent]:
    """An agent on n1, ready."""
    agent = one_node.nodes[0].agent(None, "--kubeconfig", str(api.kubeconfig))
    with witnessed(one_node, agent):
        yield agent
    agent.stop()
    agent.tidegate("cleanup")


def metrics(cluster: Cluster) -> str:
    """What the agent says of itself."""
    return cluster.nodes[0].run("curl", "-s", "http://127.0.0.1:10249/metrics").stdout


def web(cluster: Cluster, name: str, address: str) -> list[dict[str, object]]:
    """A service that leads to pod web-0."""
    web_0 = cluster.nodes[0].pods[0]
    return [
        service(name, cluster_ips=[address], ports=[port(80)]),
        endpoint_slice(name, endpoints=[endpoint(web_0.ipv4)], ports=[slice_port(8080)]),
    ]


def test_the_life_of_an_api_server(one_node: Cluster, api: Api, agent: Agent) -> None:
    """Objects and changes are applied; its end is told and harms nothing; then the difference."""
    client = one_node.nodes[0].pods[2]

    def reaches(address: str) -> bool:
        return curl(client, f"http://{address}/", timeout=1.0).outcome is Outcome.OK

    assert reaches(ADDRESS)
    status = agent.status()
    assert (status["healthy"], status["zone"]) == (True, "a")
    assert status["source"]["kind"] == "kubernetes"
    assert status["source"]["location"] == f"https://{one_node.client.ipv4}:{PORT}"
    with agent.change():
        api.manifests.write("other.yaml", *web(one_node, "other", OTHER))
    until(lambda: reaches(OTHER), "change", timeout=5.0)

    api.kill()
    until(lambda: "refused" in agent.status()["source"]["error"], "error", timeout=10.0)
    assert agent.status()["healthy"]
    assert "tidegate_source_up 0.0" in metrics(one_node)
    writes = agent.status()["writes"]
    assert reaches(ADDRESS)
    assert reaches(OTHER)

    api.manifests.remove("other.yaml")
    api.manifests.write("third.yaml", *web(one_node, "third", THIRD))
    api.start()
    until(lambda: not agent.status()["source"]["error"], "recovery", timeout=30.0)
    until(lambda: reaches(THIRD) and not reaches(OTHER), "difference", timeout=5.0)
    assert reaches(ADDRESS)
    assert agent.status()["services"] == 2
    # One goes and one comes, each with its frontend; a service may come before its slice.
    assert agent.status()["writes"] - writes in (4, 5)
    assert "tidegate_source_up 1.0" in metrics(one_node)
    agent.tidegate("verify")


def test_a_restart_with_nothing_to_do(agent: Agent) -> None:
    """An agent that finds everything as it should be is ready all the same."""
    for _ in range(3):
        agent.restart()
        assert agent.status()["healthy"]


def test_events_reach_the_api_server(one_node: Cluster, api: Api, agent: Agent) -> None:
    """The start, and a health check whose port is taken; with the read-only rest unharmed."""
    events: list[dict[str, Any]] = []

    def has(reason: str) -> bool:
        url = f"https://{one_node.client.ipv4}:{PORT}{LIST}"
        events[:] = curl(one_node.client, url, "--insecure").json["items"]
        return any(one["reason"] == reason for one in events)

    until(lambda: has("Starting"), "the start", timeout=5.0)
    (start,) = events
    assert (start["regarding"]["kind"], start["regarding"]["name"]) == ("Node", "n1")
    own = one_node.nodes[0]
    with agent.change():
        one = service(
            "taken", cluster_ips=[OTHER], ports=[port(80)], kind="LoadBalancer",
            external_policy="Local", health_check_node_port=10256,
        )  # fmt: skip
        api.manifests.write("taken.yaml", one)
    until(lambda: has("FailedToStartServiceHealthcheck"), "the failure", timeout=5.0)
    failure = events[-1]
    assert failure["regarding"]["name"] == "taken"
    assert failure["note"].startswith("node n1 failed to start healthcheck of default/taken on ")
    assert curl(own, f"http://{own.ipv4}:10256/healthz").json["nodeEligible"] is True


def test_host_ports_of_pods(one_node: Cluster, api: Api, agent: Agent) -> None:
    """With the right to read pods; a restart writes nothing, and misses a pod that went."""
    own, pod_0 = one_node.nodes[0], one_node.nodes[0].pods[0]

    def reaches() -> bool:
        to = f"http://{own.ipv4}:18080/"
        return curl(one_node.client, to, timeout=1.0).outcome is Outcome.OK

    def state() -> str:
        return str(agent.status()["features"]["host-ports"]["state"])

    asked = pod(pod_0.name, node="n1", addresses=pod_0.addresses, ports=[host_port(18080, 8080)])
    api.manifests.write("pod.yaml", asked)
    agent.flags = (*agent.flags, "--host-ports")
    agent.restart()
    until(lambda: "pods: 403" in agent.status()["source"]["error"], "refusal", timeout=10.0)
    assert state() == "degraded"
    assert not reaches()
    api.kill()
    api.start("--pods")
    until(reaches, "host port", timeout=40.0)
    assert (state(), agent.status()["healthy"]) == ("on", True)
    agent.restart()
    until(lambda: state() == "on", "pods", timeout=10.0)
    assert agent.status()["writes"] == 0
    assert reaches()
    agent.kill()
    api.manifests.remove("pod.yaml")
    assert reaches()
    agent.start()
    until(lambda: not reaches(), "the end", timeout=10.0)
    agent.tidegate("verify")


def test_names_and_weights_of_pods(one_node: Cluster, api: Api, agent: Agent) -> None:
    """A pod of this node has a name; its own weight is refused, since others cannot know it."""
    own, web_0, app = one_node.nodes[0], one_node.nodes[0].pods[0], one_node.nodes[0].pods[2]
    client = pod("client", node="n1", addresses=app.addresses)
    heavy = pod("heavy", node="n1", addresses=web_0.addresses, weight="3")
    part = endpoint_slice(
        "web", endpoints=[endpoint(web_0.ipv4, pod="heavy")], ports=[slice_port(8080)]
    )
    api.manifests.write("pods.yaml", client, heavy)
    api.manifests.write("web.yaml", service("web", cluster_ips=[ADDRESS], ports=[port(80)]), part)
    api.kill()
    api.start("--pods")
    agent.restart()
    until(lambda: bool(agent.status()["refused"]), "the refusal", timeout=10.0)
    (row,) = agent.status()["refused"]
    assert row["subject"] == "Pod default/heavy"
    assert "with --manifests only" in row["reason"]
    assert row["reason"] in agent.log
    (web_row,) = json.loads(agent.tidegate("show", "services", "-o", "json").stdout)
    assert [one["weight"] for one in web_row["backends"]] == [1]
    ends = (f"{app.ipv4}:40000", f"{ADDRESS}:80")
    agent.tidegate("explain", "tcp", *ends, "--from-pod", "default/client", timeout=60)
    url = f"https://{one_node.client.ipv4}:{PORT}{LIST}"

    def told() -> list[str]:
        events = curl(own, url, "--insecure").json["items"]
        return [
            one["note"] for one in events
            if one["regarding"]["kind"] == "Pod" and one["regarding"]["name"] == "heavy"
        ]  # fmt: skip

    until(lambda: bool(told()), "the event", timeout=5.0)
    assert told() == [f"{row['reason']}; the default holds"]


def test_a_start_while_the_server_is_away(one_node: Cluster, api: Api, agent: Agent) -> None:
    """What is in the maps serves on, for as long as it takes; its return costs no write."""
    client = one_node.nodes[0].pods[2]
    agent.stop()
    api.kill()
    with pytest.raises(BedError, match="not ready in time"):
        agent.start(timeout=3.0)
    status = agent.status()
    assert (status["source"]["synced"], status["writes"]) == (False, 0)
    assert "refused" in status["source"]["error"]
    assert "tidegate_synced 0.0" in metrics(one_node)
    assert curl(client, f"http://{ADDRESS}/", timeout=1.0).outcome is Outcome.OK
    api.start()
    until(lambda: agent.status()["source"]["synced"], "recovery", timeout=60.0)
    assert agent.status()["writes"] == 0
    agent.tidegate("verify")
