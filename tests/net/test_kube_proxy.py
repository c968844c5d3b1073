"""In kube-proxy's place: its configuration file, its name, and what ends at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Agent, Cluster, Node, Outcome, curl, until
from tests.bed.manifests import node
from tests.net.test_api_server import ADDRESS, Api, web

CONFIGURATION = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection: {kubeconfig: KUBECONFIG, qps: 0, burst: 0, contentType: ""}
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: null, min: null, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null}
hostnameOverride: the-host-name
iptables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
metricsBindAddress: 127.0.0.1:10251
mode: nftables
nodePortAddresses: null
oomScoreAdj: 7
udpIdleTimeout: 0s
winkernel: {enableDSR: false, networkName: "", sourceVip: ""}
"""


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
def configuration(api: Api, tmp_path: Path) -> Path:
    """The file of a kubeadm cluster, for this server."""
    path = tmp_path / "config.conf"
    path.write_text(CONFIGURATION.replace("KUBECONFIG", str(api.kubeconfig)))
    return path


def bpffs(host: Node) -> Path:
    """Where the node's agents pin."""
    return host._claim.bpffs / host.name


def test_kubeadms_file(one_node: Cluster, configuration: Path) -> None:
    """It serves; flags for its fields lose, but the node's name wins; once rewritten, it ends."""
    host = one_node.nodes[0]
    agent = Agent(
        host, host.group, bpffs(host), None,
        ["--config", str(configuration), "--metrics-bind-address=127.0.0.1:1", "-v=2"],
    )  # fmt: skip
    agent.start()
    try:
        assert curl(host.pods[2], f"http://{ADDRESS}/").outcome is Outcome.OK
        status = agent.status()
        assert (status["node"], status["zone"]) == ("n1", "a")
        assert curl(host, "http://127.0.0.1:10251/metrics").outcome is Outcome.OK
        assert "--metrics-bind-address: --config" in agent.log
        assert "udpIdleTimeout: no such field" in agent.log
        score = Path(f"/proc/{agent.process.pid}/oom_score_adj").read_text()
        assert int(score) == 7
        with configuration.open("a") as file:
            file.write("\n")
        until(lambda: not agent.process.running, "end", timeout=10.0)
        assert agent.process.end() == 2
        assert "was changed" in agent.log.splitlines()[-1]
        assert curl(host.pods[2], f"http://{ADDRESS}/").outcome is Outcome.OK
    finally:
        agent.stop()
        agent.tidegate("cleanup")


def call(host: Node, *args: str) -> Any:
    """The program under the name kube-proxy, on this host, to its end."""
    program = [sys.executable, "-c", "from lb.cli import kube_proxy; kube_proxy()"]
    return host.run(*program, *args, "--bpffs", str(bpffs(host)), check=False)


def test_what_ends_at_once(one_node: Cluster) -> None:
    """`--init-only` prepares the node, `--cleanup` takes everything off it; both say so."""
    host = one_node.nodes[0]
    done = call(host, "--init-only")
    assert (done.returncode, "reserved" in done.stderr) == (0, True), done.stderr
    reserved = host.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout
    assert reserved.strip() == "49152-65535"
    done = call(host, "--cleanup")
    assert done.returncode == 0, done.stderr
    assert not host.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.strip()
    done = call(host, "--cleanup=true")
    assert done.returncode == 0, done.stderr
