"""What load balancers ask a node, over the wire: health check node ports, healthz, and no lies."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from tests.bed import BedError, Host, Outcome, Process, curl, until
from tests.bed.manifests import ingress, node
from tests.net.world import FAMILIES, World

REFUSED = (0, "", {})


TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


class Said(NamedTuple):
    """The code, the weight, and the body of an answer."""

    code: int
    weight: str
    body: Any


def ask(host: Host, address: str, port: int, path: str = "/") -> Said:
    """As a load balancer does; `REFUSED` where nobody listens."""
    target = f"[{address}]" if ":" in address else address
    found = curl(host, f"http://{target}:{port}{path}", "--include")
    if found.outcome is Outcome.REFUSED:
        return Said(*REFUSED)
    assert found.outcome is Outcome.OK, found
    head, _, body = found.text.partition("\r\n\r\n" if "\r\n\r\n" in found.text else "\n\n")
    lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers["X-Content-Type-Options"] == "nosniff"
    weight = headers.get("X-Load-Balancing-Endpoint-Weight", "")
    is_json = headers["Content-Type"] == "application/json"
    return Said(int(lines[0].split()[1]), weight, json.loads(body) if is_json else body)


def everywhere(world: World, port: int) -> dict[tuple[str, str], tuple[int, str]]:
    """Code and weight, as seen from the client outside, by node and family."""
    return {
        (one.name, family): ask(world.cluster.client, getattr(one, family), port)[:2]
        for one in world.cluster.nodes
        for family in FAMILIES
    }


def local(world: World, name: str, pods: list[Host], port: int, **spec: Any) -> None:
    """A Local load balancer service with a health check node port; applied when this returns."""
    world.serve(
        name, pods, kind="LoadBalancer", external_policy="Local", health_check_node_port=port,
        load_balancer=[ingress("203.0.113.77")], **spec,
    )  # fmt: skip


def listens(world: World, port: int, expected: dict[tuple[str, str], tuple[int, str]]) -> None:
    """Wait for these answers: sockets open and close just after a change is applied."""
    try:
        until(lambda: everywhere(world, port) == expected, "answers", timeout=5.0)
    except BedError:
        assert everywhere(world, port) == expected
        raise


def seen(world: World, *rows: tuple[int, str]) -> dict[tuple[str, str], tuple[int, str]]:
    """The same row for both families, by node."""
    return {
        (one.name, family): row
        for one, row in zip(world.cluster.nodes, rows, strict=True)
        for family in FAMILIES
    }


GONE = (0, "")


@pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
class TestTwoNodes:
    """n1 has an endpoint, n2 has none, as traffic with policy Local sees it."""

    def test_the_life_of_a_health_check(self, world: World) -> None:
        """Opened with the service; follows endpoints and port; closed with the policy."""
        local(world, "check", [world.near], 32000)
        listens(world, 32000, seen(world, (200, "1"), (503, "0")))
        said = ask(world.cluster.client, world.node.ipv6, 32000, "/any/path")
        assert said.body == {
            "service": {"namespace": "default", "name": "check"},
            "localEndpoints": 1,
            "serviceProxyHealthy": True,
        }
        local(world, "check", world.webs, 32000)
        listens(world, 32000, seen(world, (200, "1"), (200, "1")))
        local(world, "check", [world.far], 32001)
        listens(world, 32001, seen(world, (503, "0"), (200, "1")))
        listens(world, 32000, seen(world, GONE, GONE))
        world.serve("check", world.webs, kind="LoadBalancer")
        listens(world, 32001, seen(world, GONE, GONE))
        world.remove("check")

    def test_terminating_endpoints_serve_on_and_count_nothing(self, world: World) -> None:
        """So a load balancer leaves a node while its last pod still answers."""
        local(world, "drain", [world.near], 32002)
        listens(world, 32002, seen(world, (200, "1"), (503, "0")))
        slices = world.slices("drain", [world.near], ready=False, serving=True, terminating=True)
        service, *_ = world.objects(
            "drain", [], world.vip(), kind="LoadBalancer", external_policy="Local",
            health_check_node_port=32002, load_balancer=[ingress("203.0.113.77")],
        )  # fmt: skip
        world.write("drain", service, *slices)
        listens(world, 32002, seen(world, (503, "0"), (503, "0")))
        world.remove("drain")
        listens(world, 32002, seen(world, GONE, GONE))

    def test_a_port_of_another_process(self, world: World) -> None:
        """The other keeps it; the agent says so, and has it as soon as it is free."""
        squatter = _squat(world.node, 32003)
        local(world, "taken", [world.near], 32003)
        until(lambda: world.agent.status()["features"]["health-checks"]["state"] == "degraded",
              "status", timeout=5.0)  # fmt: skip
        shown = world.agent.status()["features"]["health-checks"]
        assert "0.0.0.0:32003: Address already in use" in shown["reason"]
        assert "[::]:32003: Address already in use" in shown["reason"]
        assert "0.0.0.0:32003" in world.agent.log
        assert "default/taken" in world.agent.log
        squatter.end()
        until(lambda: everywhere(world, 32003) == seen(world, (200, "1"), (503, "0")),
              "the port", timeout=10.0)  # fmt: skip
        assert world.agent.status()["features"]["health-checks"] == {"state": "on", "services": 1}
        world.remove("taken")

    def test_healthz_drains_a_node_and_livez_does_not(self, world: World) -> None:
        """The autoscaler's taint, or deletion, of this node alone; and back."""
        own = world.node
        plain = node("n1", addresses=own.addresses)
        tainted = {**plain, "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}}
        meta = {**plain["metadata"], "deletionTimestamp": "2026-11-21T16:00:00Z"}
        for name, leaving in (("taint", tainted), ("deletion", {**plain, "metadata": meta})):
            world.write("node", leaving)
            codes = {
                (one.name, path): ask(world.cluster.client, one.ipv6, 10256, path).code
                for one in world.cluster.nodes
                for path in ("/healthz", "/livez")
            }
            assert codes == {
                ("n1", "/healthz"): 503, ("n1", "/livez"): 200,
                ("n2", "/healthz"): 200, ("n2", "/livez"): 200,
            }, name  # fmt: skip
            world.write("node", plain)
            said = ask(world.cluster.client, own.ipv4, 10256, "/healthz")
            assert said.code == 200
            assert said.body["nodeEligible"] is True
            assert said.body["lastUpdated"] == said.body["currentTime"]
        assert ask(world.cluster.client, own.ipv4, 10256, "/").code == 404

    def test_a_dead_agent_has_no_ports(self, world: World) -> None:
        """Load balancers must not take silence for health; a new one opens them again."""
        local(world, "dead", [world.near], 32004)
        listens(world, 32004, seen(world, (200, "1"), (503, "0")))
        world.agent.kill()
        for port in (32004, 10256):
            assert ask(world.cluster.client, world.node.ipv4, port) == REFUSED
        world.agent.start()
        listens(world, 32004, seen(world, (200, "1"), (503, "0")))
        assert ask(world.cluster.client, world.node.ipv4, 10256, "/healthz").code == 200
        world.remove("dead")


@pytest.mark.parametrize("world", ["one_node"], indirect=True)
def test_the_metrics_port_answers_as_kube_proxys(world: World) -> None:
    """Both sets of metrics; how long a change took, from its own date; and kube-proxy's pages."""

    def page(path: str) -> str:
        return curl(world.node, f"http://127.0.0.1:10249{path}").text

    at = world.serve("dated", [world.near])
    service, *slices = world.objects("dated", [world.near], at)
    for one in slices:
        one["endpoints"] = []
        one["metadata"]["annotations"] = {TRIGGER: datetime.now(UTC).isoformat()}
    world.write("dated", service, *slices)
    lines = page("/metrics").splitlines()
    for family in ("IPv4", "IPv6"):
        one = f'ip_family="{family}"'
        for name, labels in (
            ("kubeproxy_network_programming_duration_seconds_count", one),
            ("kubeproxy_network_programming_duration_seconds_bucket", f'{one},le="5"'),
            ("tidegate_programming_duration_seconds_count", one),
        ):
            assert f"{name}{{{labels}}} 1.0" in lines
    assert "tidegate_synced 1.0" in lines
    assert page("/proxyMode") == "iptables"
    assert page("/healthz") == "ok"
    assert "kubeproxy.config.k8s.io" in json.loads(page("/configz"))
    world.remove("dated")


@pytest.mark.parametrize("world", [("one_node", "--proxy-mode", "nftables")], indirect=True)
def test_health_checks_listen_where_node_ports_do(world: World) -> None:
    """In nftables mode on the node's primary addresses and nowhere else."""
    local(world, "primary", [world.near], 32005)
    listens(world, 32005, seen(world, (200, "1")))
    for other in ("127.0.0.1", "::1"):
        assert ask(world.node, other, 32005) == REFUSED
    world.remove("primary")


def _squat(host: Host, port: int) -> Process:
    """Another program that listens on a port, in both families."""
    text = (
        "import socket, time; "
        f"one = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True); "
        "print('there', flush=True); time.sleep(600)"
    )
    return host.spawn(
        sys.executable, "-IS", "-c", text, ready=lambda process: "there" in process.output
    )
