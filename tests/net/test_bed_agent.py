"""The bed drives an agent as its contract says; shown on a stand-in that has no data path."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Agent, BedError, Cluster, Manifests
from tests.bed.manifests import port, service

WEB = service("web", cluster_ips=["10.96.0.10"], ports=[port(80)])


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parent / "stand_in_agent.py"
    monkeypatch.setenv("TIDEGATE", shlex.join([sys.executable, str(script)]))


@pytest.fixture
def agent(one_node: Cluster, tmp_path: Path) -> Iterator[Agent]:
    """A stand-in on n1, ready, that watches a directory of its own."""
    agent = one_node.nodes[0].agent(Manifests(tmp_path / "manifests").directory)
    yield agent
    agent.kill()


def test_flags(one_node: Cluster, agent: Agent) -> None:
    """The agent is told its node, addresses, cgroup, bpffs and socket."""
    node, argv = one_node.nodes[0], agent.status()["argv"]
    flags = dict(zip(argv[1::2], argv[2::2], strict=True))
    assert argv[0] == "agent"
    assert flags["--node-name"] == "n1"
    assert flags["--node-ip"] == "192.168.77.11,fd00:77::11"
    assert flags["--cgroup"] == str(node.group)
    assert flags["--manifests"] == str(agent.manifests)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    bpffs = [path for _, path, kind, *_ in mounts if kind == "bpf"]
    assert str(Path(flags["--bpffs"]).parent) in bpffs


def test_change_waits_for_its_revision(agent: Agent) -> None:
    """A block ends when what was written, and later removed, is applied."""
    manifests = Manifests(agent.manifests)
    with agent.change():
        manifests.write("web.yaml", WEB)
    assert (first := agent.status()["revision"]) > 1
    with agent.change():
        manifests.remove("web.yaml")
    assert agent.status()["revision"] > first


def test_change_that_never_comes(agent: Agent) -> None:
    """A block whose change is not applied in time fails and says so."""
    with pytest.raises(BedError, match="timed out"), agent.change(timeout=0.2):
        pass


def test_restart_and_kill(agent: Agent) -> None:
    """A restart is another process, ready again; a kill is at once."""
    before = agent.process.pid
    agent.restart()
    assert agent.process.pid != before
    assert agent.status()["revision"] == 1
    agent.kill()
    assert not agent.process.running
    with pytest.raises(BedError, match="GET /status"):
        agent.status()


def test_agent_that_does_not_start(one_node: Cluster, tmp_path: Path) -> None:
    """An agent that ends before it is ready is shown with its own words."""
    with pytest.raises(BedError, match=r"ended before it was ready\nmanifests: no such directory"):
        one_node.nodes[0].agent(tmp_path, "--fail", "now")


def test_command_line(agent: Agent) -> None:
    """Commands run on the node, each with the flags that lead to this agent."""
    rows = {
        ("status", "-o", "json"): ["--api-socket", str(agent.api_socket)],
        ("show", "services"): ["--bpffs", str(agent.bpffs)],
        ("cleanup",): ["--bpffs", str(agent.bpffs), "--cgroup", str(agent.group)],
        ("plan", "DIR"): [],
    }
    for args, expected in rows.items():
        assert json.loads(agent.tidegate(*args).stdout) == [*args, *expected]
