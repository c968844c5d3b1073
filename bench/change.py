"""How long one endpoint's change takes until new connections follow it.

`python -m bench.change [SERVICES ...]`, 10 endpoints a service, the change of another service each
time. Two ways: `in process`, from a source's delivery to the flip of the service's word in the
kernel's map; `agent`, from the rename of a manifest file to the flip, seen from outside in the
agent's own maps, and to the agent's answer that it is applied.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from time import perf_counter, sleep

from bench import load
from bench.report import Value, report
from bpf.layout import NameKind
from bpf.link import GUARD, SOCKET_HOOKS
from bpf.maps import Array
from bpf.pins import Pins
from lb.config import Settings
from lb.controller import Controller
from lb.here import Addresses
from lb.model import ServiceName
from lb.names import unpacked
from lb.reconcile import Reconciler
from lb.tables import SIZES, Tables, in_kernel
from tests.bed import Agent, Cluster, Manifests, Node, until

COUNTS = (10, 1000, 10_000)
CHANGES = 400
AGENT_CHANGES = 200
GOAL_MS = 5.0
"""DESIGN 10: one endpoint's change to the data path, p99."""
LOOK_SECONDS = 2e-5
"""Between two looks at the map from outside."""


class Watched:
    """The services' table, which notes when the word of the watched service was stored."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.capacity, self.size = array.capacity, array.size
        self.service = 0
        self.stored = 0.0

    def write(self, index: int, data: bytes) -> None:
        """As the array's."""
        self.array.write(index, data)

    def store_word(self, index: int, offset: int, value: int) -> None:
        """As the array's; the time is taken after the first word, which is the cluster IP's."""
        self.array.store_word(index, offset, value)
        if index == self.service and not offset:
            self.stored = perf_counter()

    def read(self, index: int, count: int = 1) -> bytes:
        """As the array's."""
        return self.array.read(index, count)


def word(array: Array, service: int) -> bytes:
    """The word by which sockets find the service's backends."""
    return array.read(service)[:8]


def row(services: int, way: str, seconds: list[float], goal: float | str) -> dict[str, Value]:
    """One line of the table."""
    hundredths = quantiles(seconds, n=100, method="inclusive")
    return {
        "services": services,
        "endpoints": services * load.ENDPOINTS,
        "way": way,
        "changes": len(seconds),
        "p50 ms": median(seconds) * 1e3,
        "p99 ms": hundredths[98] * 1e3,
        "max ms": max(seconds) * 1e3,
        "goal p99 ms": goal,
    }


def _tables(folder: Path) -> tuple[Tables, Watched]:
    pins = Pins(folder)
    pins.build("sock.c", (*SOCKET_HOOKS, GUARD), SIZES, {"HAVE_SET_RETVAL": "1"})
    tables = in_kernel(pins)
    watched = Watched(tables.services)
    return (
        Tables(
            frontends=tables.frontends,
            services=watched,
            slots=tables.slots,
            rings=tables.rings,
            backends=tables.backends,
            loads=tables.loads,
            ranges=tables.ranges,
            names=tables.names,
        ),
        watched,
    )


@contextmanager
def _running(folder: Path) -> Iterator[tuple[Controller, Watched]]:
    """The agent's own loop on maps of the kernel, without a source."""
    tables, watched = _tables(folder)
    settings = Settings(
        node_name="n1", cgroup=folder, bpffs=folder, api_socket=folder / "agent.sock"
    )
    reconciler = Reconciler(tables, guard=lambda: None)
    addresses = Addresses(Pins(folder).open_hash("addresses"), settings)
    controller = Controller(settings, reconciler, addresses, lambda _: None)
    stop = Event()
    loop = Thread(target=controller.run, args=(stop,))
    loop.start()
    try:
        yield controller, watched
    finally:
        stop.set()
        controller.wake()
        loop.join()
        Pins(folder).remove()


def in_process(folder: Path, services: int) -> dict[str, Value]:
    """Delivered to flipped."""
    turns = dict.fromkeys(range(1, services + 1), 0)
    with _running(folder) as (controller, watched):
        controller.changed([one for number in turns for one in load.changes(number)])
        controller.synced()
        with controller.lock:
            controller.lock.wait_for(lambda: controller.is_synced)
        ids = {unit.service: one.service for unit, one in controller.reconciler.units.items()}
        seconds = []
        for number in _shuffled(services, CHANGES):
            turns[number] += 1
            changes = load.changes(number, turn=turns[number])
            watched.service = ids[ServiceName("default", f"service-{number}")]
            before, revision = word(watched, watched.service), controller.revision
            start = perf_counter()
            controller.changed(changes)
            _await_revision(controller, revision)
            if word(watched, watched.service) == before:
                raise AssertionError(f"service {number} did not flip")
            seconds.append(watched.stored - start)
    return row(services, "in process, to the flip", seconds, GOAL_MS)


def _await_revision(controller: Controller, before: int) -> None:
    with controller.lock:
        controller.lock.wait_for(lambda: controller.revision > before)


def _shuffled(services: int, changes: int) -> list[int]:
    """Which service changes when."""
    return random.Random(1).choices(range(1, services + 1), k=changes)


def through_agent(node: Node, folder: Path, services: int) -> list[dict[str, Value]]:
    """Renamed to flipped, and to told."""
    manifests = Manifests(folder)
    load.write(manifests, services - 1)
    manifests.write("changing.json", *load.objects(services))
    agent = node.agent(folder)
    try:
        array = in_kernel(Pins(agent.bpffs)).services
        until(
            lambda: agent.status()["services"] == services,
            f"{services} services",
            timeout=120,
            process=agent.process,
        )
        service = _id_of(agent, services)
        flipped, told = [], []
        for turn in range(1, AGENT_CHANGES + 1):
            objects = load.objects(services, turn=turn)
            present = partial(word, array, service)
            one, other = _timed(agent, present, partial(manifests.write, "changing.json", *objects))
            flipped.append(one)
            told.append(other)
    finally:
        agent.stop()
        agent.tidegate("cleanup")
    return [
        row(services, "agent, file to the flip", flipped, ""),
        row(services, "agent, file to its answer", told, ""),
    ]


def _id_of(agent: Agent, number: int) -> int:
    """The service's id, from the names in the agent's maps."""
    names = starmap(unpacked, in_kernel(Pins(agent.bpffs)).names.items())
    wanted = f"default/service-{number}/"
    return next(
        found for kind, found, text in names if kind is NameKind.SERVICE and text.startswith(wanted)
    )


def _timed(
    agent: Agent, word_now: Callable[[], bytes], change: Callable[[], object]
) -> tuple[float, float]:
    """Seconds from the end of the change to the flip, and to the revision after it."""
    before, revision = word_now(), agent.status()["revision"]
    change()
    start = perf_counter()
    while word_now() == before:
        sleep(LOOK_SECONDS)
        if perf_counter() - start > 10:
            raise AssertionError(f"no flip within 10 s\n{agent.log}")
    flip = perf_counter()
    agent.await_applied(revision)
    return flip - start, perf_counter() - start


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("services", nargs="*", type=int, default=COUNTS)
    given = parser.parse_args()
    table: list[dict[str, Value]] = []
    with Cluster(nodes=1) as cluster, tempfile.TemporaryDirectory() as scratch:
        node = cluster.nodes[0]
        for services in given.services:
            own = cluster.claim.bpffs / f"own-{services}"
            table.append(in_process(own, services))
            table += through_agent(node, Path(scratch) / str(services), services)
    report("change", table, list(table[0]))


if __name__ == "__main__":
    main()
