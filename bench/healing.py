"""What the background check costs, and how soon it puts back what somebody altered.

`python -m bench.healing [SERVICES ...]`, 10 endpoints a service, a real agent that has nothing else
to do. `cpu %` is the share of one CPU over a while, with the check and without it (`idle %`).
Then backends of random services get another port behind its back, one after the other, at random
moments: seconds until it is put back.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench import load
from bench.report import Value, report
from bpf.maps import Array
from bpf.pins import Pins
from lb.tables import in_kernel
from tests.bed import Agent, Cluster, Manifests, Node, until

T = TypeVar("T")

COUNTS = (10, 1000, 10_000)
LOOK_SECONDS = 60.0
ALTERED = 12
GOAL_SECONDS = 30.0
PORT = 16
"""Where in struct backend its port lies."""


def cpu_share(agent: Agent, _services: int) -> float:
    """Of one CPU, in percent, over a while."""
    path = Path(f"/proc/{agent.process.pid}/stat")

    def ticks() -> int:
        return sum(int(one) for one in path.read_text().rpartition(")")[2].split()[11:13])

    before = ticks()
    time.sleep(LOOK_SECONDS)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / LOOK_SECONDS * 100


def put_back(backends: Array, number: int) -> float:
    """Seconds from the alteration to the repair."""
    before = backends.read(number)
    word = int.from_bytes(before[PORT : PORT + 8], "little")
    backends.store_word(number, PORT, word ^ 1)
    start = time.perf_counter()
    while backends.read(number) != before:
        time.sleep(0.005)
        if time.perf_counter() - start > 2 * GOAL_SECONDS:
            raise AssertionError("not put back")
    return time.perf_counter() - start


def measured(node: Node, folder: Path, services: int) -> dict[str, Value]:
    """One line of the table."""
    load.write(Manifests(folder), services)
    idle = _while_serving(node, folder, services, 0, cpu_share)
    share, seconds = _while_serving(node, folder, services, 10, _with_repairs)
    return {
        "services": services, "idle %": idle, "cpu %": share,
        "p50 s": median(seconds), "max s": max(seconds), "goal s": GOAL_SECONDS,
    }  # fmt: skip


def _while_serving(
    node: Node, folder: Path, services: int, interval: int, measure: Callable[[Agent, int], T]
) -> T:
    agent = node.agent(folder, "--repair-interval", str(interval))
    try:
        until(
            lambda: agent.status()["services"] == services,
            f"{services} services", timeout=120, process=agent.process,
        )  # fmt: skip
        return measure(agent, services)
    finally:
        agent.stop()
        agent.tidegate("cleanup")


def _with_repairs(agent: Agent, services: int) -> tuple[float, list[float]]:
    share = cpu_share(agent, services)
    backends = in_kernel(Pins(agent.bpffs)).backends
    chance = random.Random(1)
    seconds = []
    for _ in range(ALTERED):
        time.sleep(chance.uniform(0, 2))
        seconds.append(put_back(backends, chance.randrange(1, 10 * services)))
    return share, seconds


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("services", nargs="*", type=int, default=COUNTS)
    given = parser.parse_args()
    with Cluster(nodes=1) as cluster, tempfile.TemporaryDirectory() as scratch:
        table = [
            measured(cluster.nodes[0], Path(scratch) / str(services), services)
            for services in given.services
        ]
    report("healing", table, list(table[0]))


if __name__ == "__main__":
    main()
