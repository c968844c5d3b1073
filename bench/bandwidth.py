"""Pod bandwidth limits: asked against measured, and how long a small request takes beside bulk.

`python -m bench.bandwidth`. Where this kernel has fq it runs here, else in a virtual machine with
Debian's (tests/vm), which is emulated: its rates are exact, its latencies are upper bounds, and
what it cannot carry at all is left out. One node, a limited pod, a client beyond the router; what
the pod sends is masqueraded. Rates are of frames, as the client's device counts them.
TBF and HTB are the kernel's, on the same device, at the same rate, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bandwidth.book import Tables
from bench.bars import Bar, draw
from bench.report import RESULTS, Value, report
from bpf.pins import Pins
from bpf.qdisc import has_fq
from lb.limits import show
from tests.bed import Cluster, Manifests, Node, Pod, until
from tests.bed.manifests import pod
from tests.net import pace
from tests.vm import machine

RATES = (1, 10, 100, 200)
"""Mbit/s."""
LATENCY_RATE = 1
"""There the queues of all three are far longer than an emulated machine hesitates."""
INGRESS_RATE = 10
SECONDS = 5.0
FLOWS = 32
WARM_UP = 3.0
"""Seconds before a rate is measured: queues have filled."""
PAUSE = 0.1
"""Seconds between requests: together they are less than the share of one of 33 flows."""
SHAPERS = ("tidegate", "tbf", "htb")
TBF = ("tbf", "burst", "32kb", "latency", "50ms", "rate")
"""A queue of 50 ms, as long as ours."""
MASQUERADE = (
    "table ip b { chain o { type nat hook postrouting priority 100; oif eth0 masquerade; }; }"
)


class Stage(NamedTuple):
    """Who is who."""

    cluster: Cluster
    node: Node
    limited: Pod
    other: Pod
    tables: Tables
    manifests: Manifests

    def limit(self, megabits: int | None, direction: str = "egress") -> None:
        """The pod's limit from now on; None: it has none."""
        one = self.limited
        asked = {direction: f"{megabits}M"} if megabits else {}
        self.manifests.write("pod.yaml", pod(one.name, node="n1", addresses=one.addresses, **asked))
        wanted = ["enforced"] * bool(megabits)
        until(lambda: self._states(megabits) == wanted, "the limit", timeout=120)
        if not megabits:
            until(self._is_bare, "no queue", timeout=120)

    def _is_bare(self) -> bool:
        """The device that leaves the node has no queue of ours any more."""
        return "noqueue" in self.node.run("tc", "qdisc", "show", "dev", "eth0").stdout

    def _states(self, megabits: int | None) -> list[str]:
        rows = show.limits(self.tables)
        rates = {row[f"{way}_bits_per_second"] for row in rows for way in ("egress", "ingress")}
        return [row["state"] for row in rows if (megabits or 0) * 10**6 in rates or not megabits]

    @contextmanager
    def shaped(self, shaper: str, megabits: int) -> Iterator[None]:
        """The pod, or the device that it leaves by, is limited meanwhile."""
        if shaper == "tidegate":
            self.limit(megabits)
            yield
            self.limit(None)
            return
        rate, tc = f"{megabits}mbit", ("tc", "qdisc", "replace", "dev", "eth0", "root")
        if shaper == "tbf":
            self.node.run(*tc, *TBF, rate)
        else:
            self.node.run(*tc, "handle", "1:", "htb", "default", "1")
            self.node.run("tc", "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1",
                          "htb", "rate", rate)  # fmt: skip
        yield
        self.node.run("tc", "qdisc", "del", "dev", "eth0", "root")


@contextmanager
def built() -> Iterator[Stage]:
    """The cluster, who keeps limits, and servers for what is sent."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(nodes=1))
        node = cluster.nodes[0]
        limited, other = node.pod("limited"), node.pod("other")
        manifests = Manifests(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        bpffs = cluster.claim.bpffs / node.name
        where = (str(bpffs), str(manifests.directory), node.name, "node")
        node.spawn(
            sys.executable, "-m", "bench.limits_alone", *where,
            ready=lambda one: "ready" in one.output, timeout=60,
        )  # fmt: skip
        pace.serve(cluster.client)
        node.run("nft", MASQUERADE)
        yield Stage(cluster, node, limited, other, show.tables(Pins(bpffs)), manifests)


def accuracy(stage: Stage) -> Iterator[dict[str, Value]]:
    """One row a rate and sort of traffic."""
    client, sender = stage.cluster.client, stage.limited
    sorts = {
        "TCP, 1 flow": (client.ipv4,),
        f"TCP, {FLOWS} flows": (client.ipv4, "-P", str(FLOWS)),
        f"TCP, {FLOWS} flows, IPv6": (client.ipv6, "-P", str(FLOWS)),
    }
    for megabits in RATES:
        asked = megabits * 1e6
        udp = (client.ipv4, "-u", "-l", "1400", "-b", f"{2 * megabits}M")
        for name, args in (sorts | {"UDP, twice as much": udp}).items():
            row: dict[str, Value] = {"asked Mbit/s": megabits, "traffic": name}
            with pace.sending(sender, client, *args):
                free = row["without a limit"] = pace.rate(client, WARM_UP) / 1e6
            if free < 1.3 * megabits:
                yield row  # more than this machine can carry
                continue
            with stage.shaped("tidegate", megabits), pace.sending(sender, client, *args):
                pace.rate(client, WARM_UP)
                found = pace.rate(client, SECONDS)
            yield row | {"measured Mbit/s": found / 1e6, "off by %": (found / asked - 1) * 100}


def latency(stage: Stage) -> Iterator[dict[str, Value]]:
    """One row a shaper and number of bulk flows: a request of the same pod, and of another one."""
    client = stage.cluster.client
    for flows in (1, FLOWS):
        for shaper in SHAPERS:
            with (
                stage.shaped(shaper, LATENCY_RATE),
                pace.sending(stage.limited, client, client.ipv4, "-P", str(flows)),
            ):
                pace.rate(client, WARM_UP)
                same = pace.latency(stage.limited, client.ipv4, pause=PAUSE)
                other = pace.latency(stage.other, client.ipv4, pause=PAUSE)
                found = pace.rate(client, SECONDS)
            yield {
                "shaper": shaper, "bulk flows": flows, "Mbit/s": found / 1e6,
                "same pod p50 ms": same.p50, "same pod p99 ms": same.p99,
                "other pod p50 ms": other.p50, "other pod p99 ms": other.p99,
            }  # fmt: skip


def ingress(stage: Stage) -> Iterator[dict[str, Value]]:
    """What a pod receives: paced by us, and policed by the kernel's action at the same rate."""
    client, one, device = stage.cluster.client, stage.limited, f"v-{stage.limited.name}"
    # Whoever counts bytes at the pod counts frames.
    stage.node.run("ethtool", "-K", device, "tso", "off", "gso", "off")
    for flows in (1, FLOWS):
        for way in ("paced", "policed"):
            if way == "paced":
                stage.limit(INGRESS_RATE, "ingress")
            else:
                _police(stage.node, device)
            with pace.sending(one, client, client.ipv4, "-R", "-P", str(flows)):
                pace.rate(one, WARM_UP)
                same = pace.latency(one, client.ipv4, pause=PAUSE)
                found = pace.rate(one, SECONDS)
            yield {
                "ingress": way, "flows": flows, "Mbit/s": found / 1e6,
                "same pod p50 ms": same.p50, "same pod p99 ms": same.p99,
            }  # fmt: skip
            if way == "paced":
                stage.limit(None)
            else:
                stage.node.run("tc", "qdisc", "del", "dev", device, "clsact")


def _police(node: Node, device: str) -> None:
    """A bucket of 100 ms, one of the kinder ones in use."""
    burst = INGRESS_RATE * 10**6 // 80
    node.run("tc", "qdisc", "replace", "dev", device, "clsact")
    node.run(
        "tc", "filter", "add", "dev", device, "egress", "matchall", "action", "police", "rate",
        f"{INGRESS_RATE}mbit", "burst", str(burst), "conform-exceed", "drop",
    )  # fmt: skip


TABLES = {"accuracy": accuracy, "latency": latency, "ingress": ingress}


def measured(names: list[str], target: Path) -> None:
    """Measures here, and writes each row as soon as it is there."""
    with built() as stage:
        for name in names:
            rows = []
            for row in TABLES[name](stage):
                print(row, flush=True)
                rows.append(row)
                (target / f"{name}.json").write_text(json.dumps(rows))


def plot(rows: list[dict[str, Value]], target: Path) -> None:
    """p50 and p99 of the same pod's requests, by shaper."""
    bars = [
        Bar(
            f"{row['shaper']}, {row['bulk flows']} bulk, {which}",
            float(row[f"same pod {which} ms"]),
            tone,
        )
        for row in rows
        for tone, which in enumerate(("p50", "p99"))
    ]
    draw(f"Small request of a pod at {LATENCY_RATE} Mbit/s, beside bulk", bars, "ms", target)


def main() -> int:
    """Exit status 1 where neither this kernel nor a virtual machine can show it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", type=Path, help="measure here, write into this folder")
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; none: all of them")
    given = parser.parse_args()
    names = given.tables or list(TABLES)
    if given.inside is not None:
        measured(names, given.inside)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if has_fq():
            measured(names, folder)
        elif reason := machine.missing():
            print(f"no fq in this kernel, and no virtual machine: {reason}", file=sys.stderr)
            return 1
        else:
            said = machine.boot(
                f"{sys.executable} -m bench.bandwidth --inside {folder} {' '.join(names)}",
                folder,
                timeout=1800,
            )
            release = folder / "release"
            os.environ["BENCH_NOTE"] = f"emulated kernel {release.read_text().strip()}"
            if not (folder / f"{names[0]}.json").exists():
                print(said[-4000:], file=sys.stderr)
                return 1
        for table in names:
            path = folder / f"{table}.json"
            rows = json.loads(path.read_text()) if path.exists() else []
            if rows:
                columns = max(rows, key=len)
                report(f"bandwidth-{table}", rows, list(columns))
                if table == "latency":
                    plot(rows, RESULTS / "bandwidth-latency.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
