"""What a service costs a client outside: short TCP connections to a node port, one by one.

`python -m bench.outside [SERVICES ...]`. The client asks a node for a pod of that node (`local`)
and for one of another node (`remote`), by two ways: `tidegate`, a node with an agent; `nftables`,
a node with the rules of kube-proxy's nftables mode. `direct` is to the address of a pod on a plain
node: as many hops as `local`. A connection through `remote` goes through one node more, each way.
Both nodes have the same services, all but two of them of IPv4 alone. A connection is a handshake,
one byte each way and a reset. Client, wire, nodes and servers share one processor: its time is what
all of them spend on it.
Each round of one run takes every case once; rounds run forwards and backwards in turn. The rate
is the median of the rounds', percentiles are of all connections that came about. `of nftables` can
at most be what `direct` makes of it: most of a connection is the stacks of both its ends. Without
XDP, since a veth copies each frame for it, which no driver of a real device does; see `--xdp`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from bench import load
from bench.native import built
from bench.nft import Forwarded, rules
from bench.report import Value, report
from tests.bed import Agent, Cluster, Host, Manifests, Node, Pod, until
from tests.bed.manifests import endpoint, endpoint_slice, port, service, slice_port

SIZES = (10, 10_000)
ROUNDS = 20
COUNT = 300
"""Connections of a case in a round."""
PORT = 9000
ECHO = PORT + 1
NODE_PORTS = {"local": 30080, "remote": 30081}
CLUSTER_IPS = {"local": ("10.95.0.1", "fd00:95::1"), "remote": ("10.95.0.2", "fd00:95::2")}
FAMILIES = ("IPv4", "IPv6")
PINNED = ("taskset", "--cpu-list", str(max(os.sched_getaffinity(0))))


class Case(NamedTuple):
    """One column of the rounds."""

    way: str
    backend: str
    family: str
    address: str
    port: int


class Stage(NamedTuple):
    """Who is who: two nodes that serve, each with a pod, and a pod on a third, plain one."""

    served: Node
    ruled: Node
    near: Pod
    """On `served`."""
    ours: Pod
    """On `ruled`."""
    far: Pod


def cases(stage: Stage) -> list[Case]:
    """All of a round."""
    found = []
    for which, family in enumerate(FAMILIES):
        found.append(Case("direct", "-", family, stage.far.addresses[which], ECHO))
        found += [
            Case(way, backend, family, node.addresses[which], number)
            for way, node in (("tidegate", stage.served), ("nftables", stage.ruled))
            for backend, number in NODE_PORTS.items()
        ]
    return found


def measured(
    client: Host, program: Path, todo: list[Case], rounds: int
) -> dict[Case, list[list[float]]]:
    """Nanoseconds of each connection of each round, by case."""
    found: dict[Case, list[list[float]]] = defaultdict(list)
    for turn in range(-1, rounds):  # the first round warms up
        for case in todo if turn % 2 else reversed(todo):
            where = (str(COUNT), case.address, str(case.port))
            done = client.run(*PINNED, str(program), *where, timeout=60)
            if turn >= 0:
                found[case].append([float(line) for line in done.stdout.split()])
    return {case: found[case] for case in todo}


def rows(services: int, found: dict[Case, list[list[float]]]) -> list[dict[str, Value]]:
    """A row a case, beside the direct way. What failed counts as nothing but that."""
    table: list[dict[str, Value]] = []
    bases: dict[str, float] = {}
    for case, tried in found.items():
        rounds = [[ns for ns in one if ns > 0] for one in tried]
        rate = median(len(one) / sum(one) * 1e9 for one in rounds)
        base = bases.setdefault(case.family, rate)  # direct stands first
        every = [ns / 1e3 for one in rounds for ns in one]
        hundredths = quantiles(every, n=100, method="inclusive")
        table.append(
            {
                "services": services,
                "family": case.family,
                "backend": case.backend,
                "way": case.way,
                "per second": round(rate),
                "of direct": rate / base,
                "of nftables": "",
                "p50 us": median(every),
                "p99 us": hundredths[98],
                "least us": min(every),
                "failed": sum(map(len, tried)) - len(every),
                "connections": len(every),
            }
        )
    others = {
        (row["family"], row["backend"]): float(row["per second"])
        for row in table
        if row["way"] == "nftables"
    }
    for row in table:
        other = others.get((row["family"], row["backend"]))
        row["of nftables"] = float(row["per second"]) / other if other else ""
    return sorted(table, key=lambda row: (row["family"], row["backend"]))


def give_rules(stage: Stage, services: int, scratch: Path) -> None:
    """Load the tables of `services` services in each family, in place of those before."""
    for which, table in enumerate(("ip", "ip6")):
        own = [
            Forwarded(
                CLUSTER_IPS[backend][which],
                80,
                [(pod.addresses[which], ECHO)],
                NODE_PORTS[backend],
                masquerade=backend == "remote",
            )
            for backend, pod in (("local", stage.ours), ("remote", stage.far))
        ]
        others = [
            Forwarded(
                load.cluster_ip(number),
                80,
                [(load.endpoint_ip(number, one), 8080) for one in range(load.ENDPOINTS)],
            )
            for number in range(1, services - len(own) + 1)
        ]
        path = scratch / f"{table}.nft"
        path.write_text(rules(table, own + (others if table == "ip" else [])))
        stage.ruled.run("nft", "-f", str(path), timeout=120)


def give_services(stage: Stage, manifests: Manifests, agent: Agent, services: int) -> None:
    """The same for the agent; returns when it has applied them."""
    items = []
    for backend, pod, node in (("local", stage.near, "n1"), ("remote", stage.far, "n2")):
        ports = [port(80, node_port=NODE_PORTS[backend])]
        ips = CLUSTER_IPS[backend]
        items.append(service(backend, kind="NodePort", cluster_ips=ips, ports=ports))
        items += [
            endpoint_slice(
                backend,
                family=family,
                endpoints=[endpoint(address, node=node)],
                ports=[slice_port(ECHO)],
            )
            for family, address in zip(FAMILIES, pod.addresses, strict=True)
        ]
    manifests.write("own.json", *items)
    load.write(manifests, services - len(NODE_PORTS))
    until(
        lambda: agent.status()["services"] == services,
        f"{services} services",
        timeout=120,
        process=agent.process,
    )


def _serve(pod: Pod, program: Path) -> None:
    pod.spawn(
        *PINNED, str(program), str(PORT),
        ready=lambda process: pod.listens(process, ECHO, "tcp6"),
    )  # fmt: skip


def staged(cluster: Cluster, scratch: Path) -> Stage:
    """The cluster's three nodes with their pods, in which servers run."""
    served, plain, ruled = cluster.nodes
    program = built("serve", scratch)
    pods = [served.pod("near"), ruled.pod("ours"), plain.pod("far")]
    for pod in pods:
        _serve(pod, program)
    return Stage(served, ruled, *pods)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("services", nargs="*", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="an even number")
    parser.add_argument("--xdp", default="off", help="as the agent has it")
    parser.add_argument("--without", action="append", default=[], help="a way to leave out")
    given = parser.parse_args()
    if shutil.which("nft") is None:
        sys.exit("bench.outside: needs the package nftables")
    table: list[dict[str, Value]] = []
    with Cluster(nodes=3) as cluster, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        stage = staged(cluster, scratch)
        program = built("short", scratch)
        manifests = Manifests(scratch / "manifests")
        agent = stage.served.agent(manifests.directory, "--xdp", given.xdp)
        todo = [case for case in cases(stage) if case.way not in given.without]
        for size in given.services:
            give_services(stage, manifests, agent, size)
            give_rules(stage, size, scratch)
            table += rows(size, measured(cluster.client, program, todo, given.rounds))
    report("outside", table, [name for name in table[0] if name != "connections"])


if __name__ == "__main__":
    main()
