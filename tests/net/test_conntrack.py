"""Timeouts of connection tracking, which belong to a network namespace, when somebody asks."""

from __future__ import annotations

from pathlib import Path

from tests.bed import Cluster
from tests.bed.agent import command

FOLDER = "/proc/sys/net/netfilter/"
ASKED = {"nf_conntrack_tcp_timeout_close_wait": "3600", "nf_conntrack_udp_timeout": "40"}
FLAGS = ("--conntrack-tcp-timeout-close-wait", "1h", "--conntrack-udp-timeout", "40s")


def values(cluster: Cluster) -> dict[str, str]:
    """All that n1 has, but for how many connections there are."""
    text = cluster.nodes[0].run("grep", "-rs", ".", FOLDER).stdout
    lines = (line.removeprefix(FOLDER).partition(":") for line in text.splitlines())
    return {name: value for name, _, value in lines if name != "nf_conntrack_count"}


def test_init_only_does_it_too(one_node: Cluster) -> None:
    """For an agent that may not write settings itself."""
    before = values(one_node)
    one_node.nodes[0].run("sh", "-c", f"echo 59 > {FOLDER}nf_conntrack_udp_timeout_stream")
    bpffs = one_node.claim.bpffs / "init"
    argv = [*command(), "agent", "--init-only", "--bpffs", str(bpffs), *FLAGS]
    one_node.nodes[0].run(*argv, "--conntrack-udp-timeout-stream", "3m", timeout=30)
    assert values(one_node) == before | ASKED | {"nf_conntrack_udp_timeout_stream": "180"}
    one_node.nodes[0].run(*command(), "cleanup", "--bpffs", str(bpffs), timeout=30)
    for name, value in before.items():
        if values(one_node)[name] != value:
            one_node.nodes[0].run("sh", "-c", f"echo {value} > {FOLDER}{name}")


def test_only_what_was_asked_for(one_node: Cluster, tmp_path: Path) -> None:
    """Nothing without a flag; with one that setting alone, once; it stays, as with kube-proxy."""
    node = one_node.nodes[0]
    before = values(one_node)
    agent = node.agent(tmp_path)
    assert values(one_node) == before
    assert "conntrack" not in agent.status()["features"]
    agent.flags = FLAGS
    agent.restart()
    assert values(one_node) == before | ASKED
    assert agent.status()["features"]["conntrack"] == {"state": "on"}
    assert "nf_conntrack_udp_timeout is 40 now; it was " in agent.log
    agent.restart()
    assert "nf_conntrack_udp_timeout is" not in agent.log
    # The number of connections is the whole machine's: no namespace but the first may set it.
    agent.flags = (*FLAGS, "--conntrack-min", "1000000")
    agent.restart()
    found = agent.status()["features"]["conntrack"]
    assert found["state"] == "degraded"
    assert "could not set /proc/sys/net/netfilter/nf_conntrack_max to 1000000" in found["reason"]
    assert values(one_node) == before | ASKED
    agent.stop()
    agent.tidegate("cleanup")
