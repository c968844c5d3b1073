"""What a service costs a socket: connects, datagrams and round trips, direct and through a service.

`python -m bench.connect [SERVICES ...]`. A pod talks to a pod of the same node. Each round of one
run takes every case once: `bare` without hooks (from a cgroup that no agent has), `foreign` with
hooks to an address that is no service's, `service` through one, `sticky` with session affinity.
Rounds run forwards and backwards in turn. A figure is the mean of two medians, of the forward and
of the backward rounds, so that a place in the row gains nothing; differences are taken in a round.
`least +ns` is the difference of the fastest rounds: neighbours on the machine disturb it least.
The state `silent` has a service with source ranges, for which every packet is looked at.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from bench import load
from bench.native import built
from bench.report import Value, report
from tests.bed import Agent, Cluster, Manifests, Pod, until
from tests.bed.manifests import endpoint, endpoint_slice, ingress, port, service, slice_port

SIZES = (1, 100, 10_000)
ROUNDS = 100
PORT = 9000
KINDS = {
    "tcp": ("TCP connect", PORT, 50),
    "tcp-close": ("TCP connect and close", PORT, 50),
    "udp": ("UDP connect", PORT, 400),
    "udp-close": ("UDP connect and close", PORT, 400),
    "send": ("UDP sendto, unconnected", PORT, 400),
    "stream": ("TCP round trip", PORT + 1, 100),
    "datagram": ("UDP round trip, connected", PORT + 1, 100),
    "letter": ("UDP round trip, unconnected", PORT + 1, 100),
}
"""What is timed, the port for it, and how often in a round."""
ADDRESSES = {
    "IPv4": {"service": "10.95.0.1", "sticky": "10.95.0.2"},
    "IPv6": {"service": "fd00:95::1", "sticky": "fd00:95::2"},
}
GOAL_NS = 1000
"""DESIGN 10: a service connect over a direct one; nothing per packet."""
OWN_SERVICES = 2
PINNED = ("taskset", "--cpu-list", str(max(os.sched_getaffinity(0))))
"""Client and server share a processor: else it depends on the scheduler's mood what is timed."""


class Case(NamedTuple):
    """One column of the rounds."""

    way: str
    kind: str
    family: str
    cgroup: Path
    address: str

    def __str__(self) -> str:
        _, number, count = KINDS[self.kind]
        return f"{self.cgroup},{self.kind},{self.address},{number},{count}"


def cases(cluster: Cluster, server: Pod, client: Pod) -> list[Case]:
    """All of a round. The client outside lends its cgroup, where no hook is."""
    bare, hooked = cluster.client.cgroup, client.cgroup
    found = []
    for kind in KINDS:
        for family, direct in zip(ADDRESSES, server.addresses, strict=True):
            found.append(Case("bare", kind, family, bare, direct))
            found.append(Case("foreign", kind, family, hooked, direct))
            found += [
                Case(way, kind, family, hooked, address)
                for way, address in ADDRESSES[family].items()
            ]
    return sorted(found, key=lambda case: case.way != "bare")  # few changes of the cgroup


def measured(client: Pod, program: Path, todo: list[Case], rounds: int) -> dict[Case, list[float]]:
    """Nanoseconds of each round by case."""
    done = client.run(*PINNED, str(program), str(rounds), *map(str, todo), timeout=120)
    lines = [[float(text) for text in line.split()] for line in done.stdout.splitlines()]
    return dict(zip(todo, map(list, zip(*lines, strict=True)), strict=True))


def middle(rounds: list[float]) -> float:
    """The mean of the medians of both directions."""
    return (median(rounds[::2]) + median(rounds[1::2])) / 2


def rows(state: str, found: dict[Case, list[float]]) -> list[dict[str, Value]]:
    """A row for each kind and family, with its ways side by side."""
    table = []
    for kind, (text, _, _) in KINDS.items():
        for family in ADDRESSES:
            ways = {c.way: ns for c, ns in found.items() if (c.kind, c.family) == (kind, family)}
            over = {
                way: [a - b for a, b in zip(ns, ways["bare"], strict=True)]
                for way, ns in ways.items()
            }
            low, *_, high = quantiles(over["service"], n=10)
            row: dict[str, Value] = {"services": state, "what": text, "family": family}
            row |= {f"{way} ns": round(middle(ns)) for way, ns in ways.items()}
            row |= {f"{way} +ns": round(middle(over[way])) for way in over if way != "bare"}
            row["ratio"] = middle(ways["service"]) / middle(ways["bare"])
            row["least +ns"] = round(min(ways["service"]) - min(ways["bare"]))
            row |= {"service +ns p10": round(low), "service +ns p90": round(high)}
            row |= {f"{way} ns least": round(min(ns)) for way, ns in ways.items()}
            table.append(row)
    return table


def _own(manifests: Manifests, server: Pod) -> None:
    ports = {PORT: "first", PORT + 1: "second"}
    own = []
    for number, name in enumerate(ADDRESSES["IPv4"]):
        own.append(
            service(
                name,
                cluster_ips=[addresses[name] for addresses in ADDRESSES.values()],
                ports=[
                    port(one, name=f"{text}-{protocol.lower()}", protocol=protocol)
                    for one, text in ports.items()
                    for protocol in ("TCP", "UDP")
                ],
                affinity_seconds=3600 * number or None,
            )
        )
        own += [
            endpoint_slice(
                name,
                family=family,
                endpoints=[endpoint(address, node="n1")],
                ports=[
                    slice_port(one, name=f"{text}-{protocol.lower()}", protocol=protocol)
                    for one, text in ports.items()
                    for protocol in ("TCP", "UDP")
                ],
            )
            for family, address in zip(ADDRESSES, server.addresses, strict=True)
        ]
    manifests.write("own.json", *own)


def _silent(manifests: Manifests) -> None:
    """A service whose source ranges make the agent attach `guard`."""
    manifests.write(
        "silent.json",
        service(
            "silent",
            kind="LoadBalancer",
            cluster_ips=["10.95.0.9"],
            ports=[port(80)],
            load_balancer=[ingress("203.0.113.9")],
            source_ranges=["192.0.2.0/24"],
        ),
        endpoint_slice("silent", endpoints=[endpoint("10.128.0.1")], ports=[slice_port(80)]),
    )


def _await(agent: Agent, services: int) -> None:
    until(
        lambda: agent.status()["services"] == services,
        f"{services} services",
        timeout=120,
        process=agent.process,
    )


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("services", nargs="*", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="an even number")
    given = parser.parse_args()
    table = []
    with Cluster(nodes=1) as cluster, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        node = cluster.nodes[0]
        server, client = node.pod("web-0"), node.pod("app-0")
        server.spawn(
            *PINNED, str(built("serve", folder)), str(PORT),
            ready=lambda process: server.listens(process, PORT + 1, "tcp6", "udp6"),
        )  # fmt: skip
        program = built("connect", folder)
        manifests = Manifests(folder / "manifests")
        _own(manifests, server)
        agent = node.agent(manifests.directory)
        todo = cases(cluster, server, client)
        for size in given.services:
            load.write(manifests, size - 1)
            _await(agent, size - 1 + OWN_SERVICES)
            table += rows(str(size), measured(client, program, todo, given.rounds))
        _silent(manifests)
        _await(agent, given.services[-1] + OWN_SERVICES)
        state = f"{given.services[-1]}, silent"
        table += rows(state, measured(client, program, todo, given.rounds))
    for row in table:
        row["goal +ns"] = GOAL_NS if row["what"] in ("TCP connect", "UDP connect") else ""
    shown = [name for name in table[0] if not name.endswith(("ns least", "p10", "p90"))]
    report("connect", table, shown)


if __name__ == "__main__":
    main()
