"""What a packet costs in XDP, in ns and as a ratio to the least that a balancer could do.

`python -m bench.packet [WORD ...]`: all rows, or those whose name holds one of the words. Program
test runs; each run begins by putting the packet back, since a program that wraps changes it, and
calls the balancer by a tail call; what that costs is taken off. A row is the least of many short
rounds: other work on the machine only ever adds. Packets lie in the cache, and there is no driver:
figures compare programs, and foretell no packet rate.

The table of flows has its default size, with as many places as the largest row has flows in a table
four times as large. "Ring only" is a build that remembers no flow: each packet goes by the Maglev
table. The device counts as one that brings whole checksums, as those with a driver do.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import report
from bpf import libbpf
from bpf.netns import entered
from lb.model import Way
from lb.tables import SIZES
from tests.packet.bench import Bench, standing
from tests.packet.net import BACKEND, V4, V6, Net, offered
from tests.packet.packets import Make, tcp, udp

HERE = Path(__file__).parent
NUMBERS = range(2, 102)
"""Last parts of the backends' addresses."""
ROUNDS = 40
RUNS = 20_000
XDP_PASS, XDP_TX, XDP_REDIRECT = 2, 3, 4
# As DESIGN has them: the most, in times of the floor, and what Katran takes.
GOALS = {1: (0, 10.4), 1 << 10: (8, 13.0), 1 << 16: (14, 33.6), 1 << 19: (16, 74.0)}


ROOM = {"dsr_flows": SIZES["dsr_flows"] * 4}
"""Rows of flows: for half a million without one that gives way to another."""
BUILDS: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "default": ({}, {}),
    "roomy": (ROOM, {}),
    "ring only": ({}, {"REMEMBERING": "false"}),
}
"""Sizes and constants besides the product's own."""
PLACES = {V4: (28, 34), V6: (36, 54)}
"""Where in a frame the client's address ends, and its port lies."""


class Row(NamedTuple):
    """A packet of one of `flows` connections, and the verdict that it must meet."""

    name: str
    net: Net
    make: Make
    flags: str
    flows: int
    verdict: int
    goal: float = 0
    katran: float = 0
    way: Way = Way.DSR
    port: int = 80
    build: str = "default"


ROWS = (
    Row("ring only", V4, tcp, "A", 1, XDP_REDIRECT, 6, 12.7, build="ring only"),
    Row("ring only, 65,536 flows", V4, tcp, "A", 1 << 16, XDP_REDIRECT, build="ring only"),
    *(
        Row(
            f"established, {flows:,} flows", V4, tcp, "A", flows, XDP_REDIRECT, *GOALS[flows],
            build="roomy" if flows == max(GOALS) else "default",
        )
        for flows in GOALS
    ),
    Row("new flow", V4, tcp, "S", 1 << 26, XDP_REDIRECT, 15, 114.0),
    Row("new flow, roomy table", V4, tcp, "S", 1 << 26, XDP_REDIRECT, build="roomy"),
    Row("UDP, 1 flow", V4, udp, "", 1, XDP_REDIRECT, 0, 13.5),
    Row("IPv6, 1 flow", V6, tcp, "A", 1, XDP_REDIRECT, 0, 9.7),
    Row("IPv6, 65,536 flows", V6, tcp, "A", 1 << 16, XDP_REDIRECT, 0, 31.4),
    Row("SNAT, 1 flow", V4, tcp, "A", 1, XDP_REDIRECT, way=Way.SNAT),
    Row("SNAT, 1,024 flows", V4, tcp, "A", 1 << 10, XDP_REDIRECT, way=Way.SNAT),
    Row("not a service", V4, tcp, "A", 1, XDP_PASS, 3, 3.8, port=81),
    Row("not a service, IPv6", V6, tcp, "A", 1, XDP_PASS, 3, 4.0, port=81),
)  # fmt: skip


class Restoring:
    """The programs of `packet.c`, compiled for frames like this one."""

    def __init__(self, frame: bytes, net: Net, balancer: int) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(HERE.parent / "bpf")
        from bcc import BPF  # noqa: PLC0415 - after the variable that it reads

        source, port = PLACES[net]
        numbers = {"OCTETS": len(frame), "SOURCE": source, "PORT": port}
        multiarch = "/usr/include/x86_64-linux-gnu"
        flags = ["-isystem", "/usr/include", "-isystem", multiarch, "-D__LINUX_BPF_H__"]
        flags += [f"-D{name}={value}" for name, value in numbers.items()]
        self._module = BPF(text=(HERE / "packet.c").read_text(), cflags=flags)
        self.frame = frame
        # BPF_XDP, as the balancer has it: a call into another program wants them alike.
        self._functions = {
            name: self._module.load_func(name, BPF.XDP, None, 37)
            for name in ("around", "measure", "empty", "least", "send", "sink")
        }
        for place, program in enumerate((balancer, self.program("empty"))):
            self._module["next"][ctypes.c_int(place)] = ctypes.c_int(program)

    def program(self, name: str) -> int:
        """The descriptor of one of them."""
        descriptor: int = self._functions[name].fd
        return descriptor

    def came(self) -> int:
        """How many frames `sink` has seen."""
        count: int = self._module["came"][ctypes.c_int(0)].value
        return count

    def give(self, flows: int, frame: bytes = b"") -> None:
        """From now on this many connections, from the first one on; by another frame."""
        table = self._module["given"]
        value = table.Leaf()
        value.flows = flows
        ctypes.memmove(value.frame, frame or self.frame, len(self.frame))
        table[ctypes.c_int(0)] = value

    def run(self, name: str, device: int, repeat: int) -> libbpf.Ran:
        """Ns a run, and the verdict of the last."""
        return libbpf.test_run_xdp(self.program(name), self.frame, device=device, repeat=repeat)


def prepared(made: Bench, row: Row) -> tuple[Restoring, Callable[[], None]]:
    """The frame's programs, and what puts the tables into the state for the row."""
    prefix = row.net.remote[0].removesuffix("5")
    hosts = [f"{prefix}{number:x}" if row.net is V6 else f"{prefix}{number}" for number in NUMBERS]
    backends = [f"{row.net.at(host, BACKEND)} n2" for host in hosts]
    frame = bytes(row.make(row.net.client, 40000, row.net.vip, row.port, flags=row.flags))
    restoring = Restoring(frame, row.net, made.program("lb_xdp"))
    given = offered(row.net, row.make, *backends, forwarding=row.way)

    # XDP leaves to tc what begins in the midst of a connection, and all that SNAT begins.
    first = bytes(row.make(row.net.client, 40000, row.net.vip, row.port, flags="S"))

    def give() -> None:
        made.give(given)
        restoring.give(row.flows, first)

    return restoring, give


def begin(made: Bench, restoring: Restoring, row: Row) -> None:
    """Each flow's first packet, twice; by tc where XDP does not begin it."""
    if row.way is Way.DSR:
        restoring.run("measure", made.device, 2 * row.flows)
        return
    first = bytearray(bytes(row.make(row.net.client, 40000, row.net.vip, row.port, flags="S")))
    source, port = PLACES[row.net]
    for number in range(row.flows):
        first[source : source + 2] = (number >> 14).to_bytes(2)
        first[port : port + 2] = (10000 + (number & 0x3FFF)).to_bytes(2)
        made.run("lb_in", bytes(first))


Least = dict[tuple[Row, str], float]
"""Ns by row and program."""


def measure(made: Bench, row: Row, least: Least) -> None:
    """One row: the least of each program it needs."""
    restoring, give = prepared(made, row)
    give()
    with entered(made.namespace), made.on_a_wire():
        # All flows are known, and where there are many the table has seen each twice.
        if not row.name.startswith("new flow"):
            begin(made, restoring, row)
        restoring.give(row.flows)
        for _ in range(ROUNDS):
            for name in ("least", "empty", "around", "measure"):
                ran = restoring.run(name, made.device, RUNS)
                least[row, name] = min(least.get((row, name), 1e9), ran.duration)
                if name == "measure" and ran.verdict != row.verdict:
                    raise SystemExit(f"{row.name}: verdict {ran.verdict}")


def table(rows: Sequence[Row], least: Least) -> list[dict[str, Any]]:
    """What they come to, beside the floor."""
    floor = min(value for (_, name), value in least.items() if name == "least")
    found = []
    for row in rows:
        cost = least[row, "around"] - least[row, "empty"]
        net = least[row, "measure"] - cost
        found.append(
            {
                "packet": row.name,
                "ns": net,
                "times floor": net / floor,
                "goal": row.goal or "",
                "Katran, published": row.katran or "",
                "floor ns": floor,
                "restoring ns": cost,
            }
        )
    return found


def main() -> None:
    """Measures and reports."""
    words = sys.argv[1:] or [""]
    rows = [row for row in ROWS if any(word in row.name for word in words)]
    least: Least = {}
    for build, (sizes, defines) in BUILDS.items():
        if wanted := [row for row in rows if row.build == build]:
            with standing(SIZES | sizes, **defines) as made:
                for row in wanted:
                    measure(made, row, least)
    found = table(rows, least)
    report("packet", found, list(found[0]))


if __name__ == "__main__":
    main()
