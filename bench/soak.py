"""An agent under random changes and random faults, which has to end as a fresh start would.

`python -m bench.soak [--seconds 600] [--seed N] [--services 300]`. The API server goes and comes
back, forgets, refuses, talks nonsense, breaks off and falls silent; the agent is killed and
stopped. Meanwhile a pod connects to a service that nothing changes, and must never fail. In the end
the maps are compared with those of an agent that starts on nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from bench.churn import Churn
from bench.report import Value, report
from bpf.netns import entered
from bpf.pins import Pins
from lb.plan import Plan, Unit
from lb.restore import restore
from lb.tables import in_kernel
from tests.bed import Agent, Cluster, Process, until
from tests.bed.apiserver import ApiServer
from tests.bed.host import PROBES
from tests.bed.manifests import endpoint, endpoint_slice, node, port, service, slice_port

STEADY = "10.96.255.1"
SECONDS, SERVICES = 600.0, 300
PER_SECOND = 200
SETTLED_SECONDS = 240.0
"""A watch that fell silent is given up after 90 s; a server that was away is asked every 30 s."""
RESOURCES = ("services", "endpointslices")

Held = dict[Unit, tuple[Plan | None, bool]]


def held(agent: Agent, *, at_rest: bool = True) -> Held:
    """What the maps say of each unit, whatever its ids are: its plan, and whether it has a ring.

    Raises AssertionError if something contradicts itself while the agent is `at_rest`.
    """
    found = restore(in_kernel(Pins(agent.bpffs)))
    if at_rest and found.faults:
        raise AssertionError(found.faults)
    return {unit: (placed.plan, bool(placed.ring)) for unit, placed in found.units.items()}


class Soak:
    """An agent on node n1, its API server, and what is done to both."""

    def __init__(self, cluster: Cluster, folder: Path, dice: random.Random, services: int) -> None:
        self.dice = dice
        self.faults: Counter[str] = Counter()
        self.api = ApiServer()
        self._node = cluster.nodes[0]
        self._namespace = Path("/run/netns") / self._node.namespace
        pod = self._node.pod("web-0")
        pod.line_echo(8080)
        self._client = self._node.pod("app-0")
        self.api.store.put(
            node("n1", addresses=self._node.addresses, zone="a"),
            service("steady", cluster_ips=[STEADY], ports=[port(80)]),
            endpoint_slice("steady", endpoints=[endpoint(pod.ipv4)], ports=[slice_port(8080)]),
        )
        self.churn = Churn(self.api.store, dice, services)
        self.churn.fill()
        self.listen()
        config = self.api.kubeconfig(folder / "kubeconfig")
        flags = ("--kubeconfig", str(config))
        self.agent = Agent(
            self._node, self._node.group, cluster.claim.bpffs / self._node.name, None, flags
        )

    def listen(self) -> None:
        """On the node's own loopback."""
        with entered(self._namespace):
            self.api.start()

    @contextmanager
    def steady(self) -> Iterator[Process]:
        """Connects, one after another."""
        process = self._client.spawn(
            sys.executable, str(PROBES / "steady.py"), STEADY, "80", "0.02"
        )
        try:
            yield process
        finally:
            process.end()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Random changes meanwhile."""
        stop = Event()

        def change() -> None:
            while not stop.wait(1 / PER_SECOND):
                self.churn.step()

        thread = Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # --- faults ----------------------------------------------------------------------------

    def server_away(self) -> None:
        """Connections are cut, and refused for a while."""
        self.api.stop()
        time.sleep(self.dice.uniform(0.0, 3.0))
        self.listen()

    def gone_in_stream(self) -> None:
        """410 as an event."""
        self.api.expire_watches(self.dice.choice(RESOURCES))

    def gone_at_once(self) -> None:
        """410 as the answer to the next watch, which has to list again."""
        self.api.store.expire()
        self.api.drop(self.dice.choice(RESOURCES))

    def garbage(self) -> None:
        """A line that is no event."""
        line = self.dice.choice(
            (b"}{ \xff\n", b'{"type":"ADDED","object":7}\n', b"[]\n", b"\0\0\n")
        )
        self.api.say(self.dice.choice(RESOURCES), line)

    def cut(self) -> None:
        """A watch breaks off."""
        self.api.drop(self.dice.choice(RESOURCES))

    def refusals(self) -> None:
        """Answers of a server in trouble."""
        code = self.dice.choice((401, 403, 429, 500, 503, 504))
        self.api.refuse(
            code, times=self.dice.randrange(1, 6), retry_after=self.dice.choice((None, 1))
        )
        self.cut()

    def forgotten_page(self) -> None:
        """A list that expires half-way, and one that breaks off half-way."""
        self.api.forget_pages += 1
        self.api.broken_lists += 1
        self.gone_at_once()

    def silence(self) -> None:
        """A connection that is open and dead."""
        self.api.mute(self.dice.choice(RESOURCES))

    def kill_agent(self) -> None:
        """SIGKILL in the midst of things."""
        self.agent.kill()
        time.sleep(self.dice.uniform(0.0, 0.5))
        self.agent.start(timeout=120)

    def restart_agent(self) -> None:
        """As an upgrade does it."""
        self.agent.stop()
        self.agent.start(timeout=120)

    def run(self, seconds: float, *, silences: bool) -> None:
        """Faults, a few seconds apart, for so long."""
        faults: list[Callable[[], None]] = [
            self.server_away, self.gone_in_stream, self.gone_at_once, self.garbage, self.cut,
            self.refusals, self.forgotten_page, self.kill_agent, self.restart_agent,
            *([self.silence] if silences else []),
        ]  # fmt: skip
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for fault in self.dice.sample(faults, len(faults)):
                fault()
                self.faults[fault.__name__] += 1
                time.sleep(self.dice.uniform(0.2, 2.0))
                if time.monotonic() > deadline:
                    break

    def settle(self) -> None:
        """All objects are well-formed, and the agent has heard of the last change of each kind."""
        self.churn.mend()
        self.api.store.put(
            service("last", cluster_ips=["10.96.255.2"], ports=[port(80)]),
            endpoint_slice("last", endpoints=[endpoint("10.244.0.9")], ports=[slice_port(8080)]),
        )

        def heard() -> bool:
            units = held(self.agent, at_rest=False).items()
            last = [plan for unit, (plan, _) in units if unit.service.name == "last"]
            there = bool(last and last[0] and last[0].backends)
            return there and not self.agent.status()["failing"]

        until(heard, "the last change", timeout=SETTLED_SECONDS)


def soak(seconds: float, seed: int, services: int, *, silences: bool) -> dict[str, Value]:
    """One row. Raises AssertionError if a connect failed, or if the maps are not a fresh one's."""
    with Cluster(nodes=1) as cluster, tempfile.TemporaryDirectory() as scratch:
        one = Soak(cluster, Path(scratch), random.Random(seed), services)
        try:
            return _soak(one, seconds, seed, silences=silences)
        finally:
            one.api.stop()


def _soak(one: Soak, seconds: float, seed: int, *, silences: bool) -> dict[str, Value]:
    agent = one.agent
    agent.start()
    with one.steady() as steady:
        with one.changing():
            one.run(seconds, silences=silences)
        one.settle()
        steady.end()
    seen = json.loads(steady.output.splitlines()[-1])
    agent.tidegate("verify")
    status = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    after = held(agent)
    agent.stop()
    agent.tidegate("cleanup")
    agent.start()
    fresh = held(agent)
    agent.stop()
    agent.tidegate("cleanup")
    different = [
        str(unit) for unit in after.keys() | fresh.keys() if after.get(unit) != fresh.get(unit)
    ]
    if seen["failed"] or different:
        raise AssertionError(
            f"seed {seed}: {seen['failed'][:5]} {different[:5]}\n{agent.log[-2000:]}"
        )
    return {
        "seconds": seconds,
        "seed": seed,
        "changes": one.churn.changes,
        "faults": sum(one.faults.values()),
        "agent starts": 1 + sum(one.faults[name] for name in ("kill_agent", "restart_agent")),
        "units": len(after),
        "different": len(different),
        "connects": seen["connects"],
        "failed": len(seen["failed"]),
        "longest ms": seen["longest"] * 1e3,
        "peak MiB": round(int(peak.split()[1]) / 1024),
        **one.faults,
    }


def main() -> None:
    """Soaks and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--services", type=int, default=SERVICES)
    given = parser.parse_args()
    row = soak(given.seconds, given.seed, given.services, silences=given.seconds > SETTLED_SECONDS)
    report("soak", [row], list(row)[:11])


if __name__ == "__main__":
    main()
