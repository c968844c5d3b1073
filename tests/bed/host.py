"""A place where programs run: a network namespace and a cgroup, together.

`nsenter --net` and not `ip netns exec`: the latter mounts a new /sys, and so hides cgroups and
bpffs.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bed.cgroup import inside
from tests.bed.claim import NAMESPACES, Claim
from tests.bed.network import Pair
from tests.bed.process import Process, run, until

PROBES = Path(__file__).parent / "probes"
_OPEN = {"tcp": "0A", "udp": "07"}
"""The state column of /proc/net: TCP_LISTEN, and what an unconnected UDP socket shows."""


class Host:
    """Base of node, pod and client. `group` is its cgroup, below the cluster's own."""

    def __init__(self, claim: Claim, name: str, group: str, own: Pair) -> None:
        self.name = name
        self.ipv4, self.ipv6 = own
        self.namespace = claim.namespace(name)
        self.cgroup = claim.cgroup / group
        self.directory = claim.directory / name
        self._claim = claim
        self._processes: list[Process] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.ipv4} {self.ipv6}>"

    @property
    def addresses(self) -> Pair:
        """Its IPv4 and its IPv6 address."""
        return Pair(self.ipv4, self.ipv6)

    def make_folders(self) -> None:
        """Its cgroup and its scratch folder."""
        self.cgroup.mkdir(parents=True)
        self.directory.mkdir()

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` on this host, under the process id it starts with."""
        return inside(self.cgroup, "nsenter", f"--net={NAMESPACES / self.namespace}", *argv)

    def run(
        self, *argv: str, timeout: float = 10.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `timeout` in seconds. Raises BedError with its output."""
        return run(self.argv(*argv), timeout=timeout, check=check)

    def spawn(
        self,
        *argv: str,
        ready: Callable[[Process], bool] | None = None,
        timeout: float = 10.0,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program that the cluster ends; returns when `ready` says so.

        Raises BedError with its output when it ends before, or after `timeout` seconds.
        """
        log = self.directory / f"{len(self._processes)}-{Path(argv[0]).name}.log"
        process = Process(self.argv(*argv), log, environment=environment)
        self._processes.append(process)
        if ready is not None:
            until(lambda: ready(process), "readiness", timeout=timeout, process=process)
        return process

    def python(self, source: str | Path, *args: str, timeout: float = 10.0) -> Any:
        """Run Python text, or a script, that prints one JSON value; returns that value."""
        script = ["-c", source] if isinstance(source, str) else [str(source)]
        done = self.run(sys.executable, "-IS", *script, *args, timeout=timeout)
        return json.loads(done.stdout)

    def listens(self, process: Process, port: int, *tables: str) -> bool:
        """Whether the port is open where `process` runs, in each of tcp, tcp6, udp, udp6 named."""
        return all(
            any(
                row[1].endswith(f":{port:04X}") and row[3] == _OPEN[table[:3]]
                for row in _rows(Path(f"/proc/{process.pid}/net/{table}"))
            )
            for table in tables
        )

    def reap(self) -> None:
        """End what still runs; called when the cluster goes."""
        for process in self._processes:
            process.end(signal.SIGKILL)
        self._processes.clear()


def _rows(table: Path) -> list[list[str]]:
    """The rows of a table in /proc/net; none when its process is gone."""
    with suppress(OSError):
        return [line.split() for line in table.read_text().splitlines()[1:]]
    return []
