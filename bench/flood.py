"""An agent in a flood of changes: does it keep up, and with how much memory?

`python -m bench.flood [--services 10000] [--rate 1000] [--seconds 30]`, 10 endpoints a service.
Slices change in a stand-in API server, service after service, so many a second. `lag` is from the
moment that the server has a change until the word of that service in the kernel's map is another
one, of every 20th change, looked for each millisecond. Then as many updates a second follow in
which nothing is different but an annotation: they must write nothing. The server shares the two
cores: `server cpu` is its part.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from typing import Any

from bench import load
from bench.report import Value, report
from bpf.layout import NameKind
from bpf.maps import Array
from bpf.netns import entered
from bpf.pins import Pins
from lb.names import unpacked
from lb.tables import in_kernel
from tests.bed import Agent, Cluster, until
from tests.bed.apiserver import ApiServer
from tests.bed.manifests import endpoint, endpoint_slice, port, service, slice_port

SERVICES, RATE, SECONDS = 10_000, 1000, 30.0
SAMPLE = 20
"""Of so many changes one is watched."""
LOOK_SECONDS = 0.001
TICK_SECONDS = 0.02
"""Changes come in lots, so far apart."""
_LAST = {"last": "10.95.0.1", "very-last": "10.95.0.2"}


class Watched:
    """Notes when the words of services in the kernel's map become others."""

    def __init__(self, agent: Agent) -> None:
        tables = in_kernel(Pins(agent.bpffs))
        self._array: Array = tables.services
        names = starmap(unpacked, tables.names.items())
        self._ids = {
            text.split("/")[1]: number for kind, number, text in names if kind is NameKind.SERVICE
        }
        self._pending: dict[int, tuple[float, bytes]] = {}
        self.lags: list[float] = []
        self._stop = Event()
        self._thread = Thread(target=self._look)
        self._thread.start()

    def expect(self, service: str) -> None:
        """The service is about to change."""
        number = self._ids[service]
        self._pending.setdefault(number, (time.perf_counter(), self._word(number)))

    def close(self, timeout: float = 30.0) -> None:
        """Wait for what is pending. Raises AssertionError if something never came."""
        deadline = time.monotonic() + timeout
        while self._pending and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join()
        if self._pending:
            raise AssertionError(f"{len(self._pending)} changes never came")

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for number, (since, before) in list(self._pending.items()):
                if self._word(number) != before:
                    self.lags.append(time.perf_counter() - since)
                    del self._pending[number]

    def _word(self, number: int) -> bytes:
        return self._array.read(number)[:8]


class Memory:
    """The resident memory of a process, in MiB, seen now and then."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")

    def of(self, field: str) -> float:
        """VmRSS: of now; VmHWM: the most ever."""
        lines = self._path.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def cpu_seconds(pid: int | str) -> float:
    """What a process used so far, in user and kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def running(cluster: Cluster, folder: Path, services: int) -> Iterator[tuple[Agent, ApiServer]]:
    """A server with so many services, and an agent that has them all."""
    node, api = cluster.nodes[0], ApiServer()
    for number in range(1, services + 1):
        api.store.put(*load.objects(number))
    with entered(Path("/run/netns") / node.namespace):
        api.start()
    config = api.kubeconfig(folder / "kubeconfig")
    flags = ("--kubeconfig", str(config))
    agent = Agent(node, node.group, cluster.claim.bpffs / node.name, None, flags)
    try:
        agent.start(timeout=120)
        yield agent, api
    finally:
        agent.stop()
        agent.tidegate("cleanup")
        api.stop()


def changed(number: int, turn: int) -> dict[str, Any]:
    """The service's slice, with another last endpoint at odd turns."""
    return load.objects(number, turn=turn)[1]


def annotated(number: int, turn: int) -> dict[str, Any]:
    """The slice as it was at the start, but for an annotation that nobody reads."""
    manifest = load.objects(number)[1]
    manifest["metadata"]["annotations"] = {"turn": str(turn)}
    return manifest


def pour(api: ApiServer, slices: Iterator[dict[str, Any]], rate: float, seconds: float) -> int:
    """So many changes a second, as far as this processor makes it; how many they were."""
    begin, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        due = int(rate * passed) - done
        for _ in range(due):
            api.store.put(next(slices))
        done += due
        time.sleep(TICK_SECONDS)
    return done


class Flood:
    """What is poured over an agent."""

    def __init__(self, agent: Agent, api: ApiServer, services: int) -> None:
        self.agent, self.api = agent, api
        self.memory, self.watched = Memory(agent.process.pid), Watched(agent)
        self.turns = dict.fromkeys(range(1, services + 1), 0)
        self.order = list(self.turns)
        random.Random(1).shuffle(self.order)

    def changes(self) -> Iterator[dict[str, Any]]:
        """One service after the other changes, for ever; every `SAMPLE`th is watched."""
        for count in itertools.count():
            number = self.order[count % len(self.order)]
            self.turns[number] += 1
            if count % SAMPLE == 0:
                self.watched.expect(f"service-{number}")
            yield changed(number, self.turns[number])

    def measure(self, rate: float, seconds: float) -> dict[str, Value]:
        """Real changes. Raises AssertionError if one never came."""
        pid, stream = self.agent.process.pid, self.changes()
        cpu, own, begin = cpu_seconds(pid), cpu_seconds("self"), time.perf_counter()
        done = pour(self.api, stream, rate, seconds / 2)
        half = self.memory.of("VmRSS")
        done += pour(self.api, stream, rate, seconds / 2)
        took = time.perf_counter() - begin
        self.watched.close()
        hundredths = quantiles(self.watched.lags, n=100, method="inclusive")
        return {
            "changes/s": done / took,
            "lag p50 ms": hundredths[49] * 1e3,
            "lag p99 ms": hundredths[98] * 1e3,
            "lag max ms": max(self.watched.lags) * 1e3,
            "half-way MiB": half,
            "after MiB": self.memory.of("VmRSS"),
            "peak MiB": self.memory.of("VmHWM"),
            "agent cpu": (cpu_seconds(pid) - cpu) / took,
            "server cpu": (cpu_seconds("self") - own) / took,
        }

    def measure_nothing(self, rate: float, seconds: float) -> dict[str, Value]:
        """Updates that change nothing. Raises AssertionError if they cost a write."""
        for number in self.order:  # as they were, so that an annotation is all the difference
            if self.turns[number] % 2:
                self.api.store.put(changed(number, 0))
        self._await("last")
        before = self.agent.status()["writes"]
        stream = (annotated(number, turn) for turn in itertools.count() for number in self.order)
        done = pour(self.api, stream, rate, seconds)
        self._await("very-last")
        # The last service is written itself, twice if it came before its slice, and its frontend.
        writes = self.agent.status()["writes"] - before
        if writes > 3:
            raise AssertionError(f"{done} updates that changed nothing cost {writes} writes")
        self.agent.tidegate("verify", timeout=120)
        return {"no-op updates": done, "their writes": max(0, writes - 3)}

    def _await(self, name: str) -> None:
        """Slices come in their order: when this one is there, so are those before it."""
        count = self.agent.status()["backends"]
        endpoints = [endpoint("10.244.0.9")]
        self.api.store.put(
            service(name, cluster_ips=[_LAST[name]], ports=[port(80)]),
            endpoint_slice(name, endpoints=endpoints, ports=[slice_port(8080)]),
        )
        until(lambda: self.agent.status()["backends"] > count, "the last slice", timeout=60)


def flood(services: int, rate: float, seconds: float) -> dict[str, Value]:
    """One row. Raises AssertionError if something never came, or if nothing cost a write."""
    with (
        Cluster(nodes=1) as cluster,
        tempfile.TemporaryDirectory() as scratch,
        running(cluster, Path(scratch), services) as (agent, api),
    ):
        one = Flood(agent, api, services)
        row: dict[str, Value] = {"services": services, "before MiB": one.memory.of("VmRSS")}
        row |= one.measure(rate, seconds)
        return row | one.measure_nothing(rate, seconds / 3)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    gc.disable()  # a server of many objects: a pause of its own would be taken for the agent's
    row = flood(given.services, given.rate, given.seconds)
    report("flood", [row], list(row))


if __name__ == "__main__":
    main()
