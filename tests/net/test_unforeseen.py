"""An agent with a bug in one of its threads: it ends and says where; its data path does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bed import Outcome, curl
from tests.net.world import FAMILIES, World, url

FAULTY = """
from lb.sources import manifests

read = manifests.read

def faulty(signatures, *rest):
    if "bug.yaml" in signatures:
        raise LookupError("nobody foresaw this")
    return read(signatures, *rest)

manifests.read = faulty

from lb.cli import main

main()
"""
"""The agent, whose source dies of a certain file."""


@pytest.mark.parametrize("world", ["one_node"], indirect=True)
def test_a_dead_thread_ends_the_agent(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, one line in the log and at the end; traffic goes on, and the next agent serves."""
    served = world.serve("web", world.webs)
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    with monkeypatch.context() as patched:
        patched.setenv("TIDEGATE", f"{sys.executable} {script}")
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        world.agent.restart()
        world.manifests.write("bug.yaml")
        assert world.agent.process.wait() == 2
    logged, last = [line for line in world.agent.log.splitlines() if "thread source" in line]
    assert last.startswith("tidegate: thread source ended by LookupError: nobody foresaw this (")
    assert logged.endswith(last.removeprefix("tidegate: "))
    assert "Traceback" not in world.agent.log
    for family in FAMILIES:
        assert curl(world.app, url(getattr(served, family))).outcome is Outcome.OK
    world.manifests.remove("bug.yaml")
    world.agent.start()
    assert world.agent.status()["healthy"]
    assert world.agent.status()["writes"] == 0
