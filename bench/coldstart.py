"""How long an agent takes from its start until everything is applied, and the memory it needs.

`python -m bench.coldstart [--source WHICH] [SERVICES ...]`, 10 endpoints a service. `nothing`: a
node's very first start, whose programs are compiled; `boot`: no pins, but what was compiled before
is in its files; `restart`: all is there from the agent before. From exec to
READY=1, with the phases of `bench.phases`, of which some overlap. Memory is the agent's peak
(VmHWM), without the compiler's process. The API server is the bed's, on the same machine: `server
s` is its CPU time. Best of a few starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.phases import PHASES
from bench.report import Value, report
from tests.bed import Agent, Cluster, Manifests, until

COUNTS = (10, 1000, 10_000)
STARTS = 3
GOAL_SECONDS, GOAL_MIB = 2.0, 150
"""DESIGN 10, with 10,000 services from an API server."""


@contextmanager
def timed_command(phases: Path) -> Iterator[None]:
    """Agents that the bed starts meanwhile are timed; their phases go to that file."""
    added = {
        "TIDEGATE": shlex.join([sys.executable, "-m", "bench.phases"]),
        "BENCH_PHASES": str(phases),
    }
    os.environ.update(added)
    try:
        yield
    finally:
        for name in (*added, "BENCH_START"):
            os.environ.pop(name, None)


def started(agent: Agent, phases: Path, server: Callable[[], float]) -> dict[str, Value]:
    """One start: seconds in all, by phase and of the server's CPU; MiB at the peak."""
    phases.unlink(missing_ok=True)
    os.environ["BENCH_START"] = repr(time.time())
    start, served = time.perf_counter(), server()
    agent.start(timeout=120)
    found: dict[str, Value] = {"ready s": time.perf_counter() - start}
    found["server s"] = server() - served
    status = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    found |= {f"{name} s": seconds for name, seconds in json.loads(phases.read_text()).items()}
    return found | {"peak MiB": round(int(peak.split()[1]) / 1024)}


class Subject(NamedTuple):
    """An agent, not started, and the CPU seconds that its source took so far."""

    agent: Agent
    server: Callable[[], float]


@contextmanager
def from_manifests(cluster: Cluster, folder: Path) -> Iterator[Subject]:
    """From a folder of JSON files."""
    node = cluster.nodes[0]
    agent = Agent(node, node.group, cluster.claim.bpffs / node.name, folder)
    yield Subject(agent, lambda: 0.0)


@contextmanager
def from_api_server(cluster: Cluster, folder: Path) -> Iterator[Subject]:
    """From a server that holds the same files, in the node's own namespace."""
    node = cluster.nodes[0]
    keys = folder.with_name(f"{folder.name}-keys")
    keys.mkdir()
    process = node.spawn(
        *(sys.executable, "-m", "tests.bed.apiserver", "--address", "127.0.0.1"),
        *("--manifests", str(folder), "--folder", str(keys)),
    )
    try:
        config = keys / "kubeconfig"
        until(config.exists, "API server", timeout=120, process=process)
        flags = ("--kubeconfig", str(config))
        agent = Agent(node, node.group, cluster.claim.bpffs / node.name, None, flags)
        yield Subject(agent, lambda: cpu_seconds(process.pid))
    finally:
        process.end()


def cpu_seconds(pid: int) -> float:
    """What a process used so far, in user and kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SOURCES = {"manifests": from_manifests, "api": from_api_server}
"""Where the services come from; each makes an agent for a folder of them."""


def starts(subject: Subject, phases: Path, services: int) -> list[dict[str, Value]]:
    """A row for each way to start; the fastest start of each."""
    agent = subject.agent
    found: dict[str, list[dict[str, Value]]] = {"nothing": [], "restart": [], "boot": []}
    kept, flags = phases.with_name("cache"), agent.flags
    with timed_command(phases):
        for _ in range(STARTS):
            for way, runs in found.items():
                agent.flags = (*flags, "--program-cache", str(kept) if way == "boot" else "")
                if way == "boot" and not kept.exists():  # something has to be kept first
                    agent.start(timeout=120)
                    agent.stop()
                    agent.tidegate("cleanup")
                runs.append(started(agent, phases, subject.server))
                if agent.status()["services"] != services:
                    raise AssertionError(agent.tidegate("status", check=False).stdout)
                agent.stop()
                if way != "nothing":
                    agent.tidegate("cleanup")
    rows = []
    for way, runs in found.items():
        best = min(runs, key=lambda run: run["ready s"])
        row: dict[str, Value] = {"services": services, "from": way}
        row |= best
        row |= {"goal s": GOAL_SECONDS, "goal MiB": GOAL_MIB}
        rows.append(row | {"slowest s": max(float(run["ready s"]) for run in runs)})
    return rows


def measure(source: str, counts: list[int]) -> None:
    """One table for a source of services."""
    table: list[dict[str, Value]] = []
    with Cluster(nodes=1) as cluster, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for services in counts:
            directory = folder / str(services)
            load.write(Manifests(directory), services)
            with SOURCES[source](cluster, directory) as subject:
                table += starts(subject, folder / "phases.json", services)
    shown = ["services", "from", "ready s", *(f"{name} s" for name in PHASES), "server s"]
    report(f"coldstart-{source}", table, [*shown, "peak MiB", "goal s", "goal MiB"])


def main() -> None:
    """Measures and reports, by both sources if none is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("services", nargs="*", type=int, default=COUNTS)
    parser.add_argument("--source", choices=SOURCES)
    given = parser.parse_args()
    for source in [given.source] if given.source else SOURCES:
        measure(source, given.services)


if __name__ == "__main__":
    main()
