"""A Tidegate agent on a node of the bed, driven as an operator and a service manager would.

Readiness is the service manager's protocol (sd_notify(3)); what is applied is asked over the
agent's own socket. Nothing here imports the product.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bed.host import Host
from tests.bed.process import PATIENCE, BedError, Process, await_readable

PROGRAMS = Path(
    os.environ.get("TIDEGATE_PROGRAMS", Path(__file__).parents[2] / ".pytest_cache" / "programs")
)
"""What the compiler made for one agent is good for all others of this tree."""
READY_SECONDS = 30.0 * PATIENCE
"""An agent compiles its programs before it is ready; patience is for emulated machines."""


def command() -> list[str]:
    """How Tidegate is called: the variable TIDEGATE, else this checkout's."""
    given = os.environ.get("TIDEGATE")
    return shlex.split(given) if given else [sys.executable, "-m", "lb"]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Agent:
    """`tidegate agent` in a node's namespace; `group` is the cgroup of all that it serves.

    Without `manifests` the flags say where its objects come from.
    """

    def __init__(
        self,
        node: Host,
        group: Path,
        bpffs: Path,
        manifests: Path | None,
        flags: Sequence[str] = (),
    ) -> None:
        self.node = node
        self.group = group
        self.bpffs = bpffs
        self.manifests = manifests
        self.flags = tuple(flags)
        self.api_socket = node.directory / "agent.sock"
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The agent's present process; raises BedError when it was never started."""
        if self._process is None:
            raise BedError(f"no agent was started on {self.node}")
        return self._process

    @property
    def seen(self) -> Path:
        """The cgroup of those whose sockets its programs see."""
        flags = self.flags
        return Path(flags[flags.index("--cgroup") + 1]) if "--cgroup" in flags else self.group

    @property
    def log(self) -> str:
        """What the present process wrote so far."""
        return self.process.output

    def start(self, *, timeout: float = READY_SECONDS) -> None:
        """Start it and wait for READY=1; raises BedError with its output after `timeout` (s)."""
        path = self.node.directory / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            self._process = self.node.spawn(
                *command(), "agent", *self._where(), *self.flags,
                environment={"NOTIFY_SOCKET": str(path)},
            )  # fmt: skip
            deadline = time.monotonic() + timeout
            while await_readable(
                notify.fileno(), self._process, timeout=deadline - time.monotonic()
            ):
                if b"READY=1" in notify.recv(4096).splitlines():
                    return
        ending = "not ready in time" if self._process.running else "ended before it was ready"
        raise BedError(f"{self._process}: {ending}\n{self.log}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, wait for the end, return the exit status."""
        return self.process.end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop it if it runs, start it anew with the same flags, wait until it is ready."""
        self.stop()
        self.start()

    def tidegate(
        self, *args: str, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI on this node, told where this agent's things are."""
        both = ["--bpffs", str(self.bpffs), "--api-socket", str(self.api_socket)]
        where = {
            "check": ["--bpffs", str(self.bpffs), "--cgroup", str(self.group)],
            "cleanup": ["--bpffs", str(self.bpffs), "--cgroup", str(self.group)],
            "plan": [],
            "show": ["--bpffs", str(self.bpffs)],
            "monitor": both,
            "explain": [*both, "--program-cache", str(PROGRAMS)],
            "top": both,
            "sysdump": both,
        }.get(args[0], ["--api-socket", str(self.api_socket)])
        return self.node.run(*command(), *args, *where, check=check, timeout=timeout)

    def status(self, *, after: int | None = None, timeout: float = 10.0) -> dict[str, Any]:
        """The agent's status; with `after`, once its revision is above that one.

        `timeout` in seconds. Raises BedError when the agent does not answer in time.
        """
        path = "/status" if after is None else f"/status?after={after}"
        connection = _UnixConnection(self.api_socket, timeout * PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BedError(f"GET {path} of {self.node}: {error!r}\n{self.log}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise BedError(f"GET {path} of {self.node}: {response.status} {body!r}\n{self.log}")
        status: dict[str, Any] = json.loads(body)
        return status

    def await_applied(self, after: int, *, timeout: float = 10.0) -> dict[str, Any]:
        """The status once a revision above `after` is applied; raises BedError past `timeout` (s).

        An agent may answer a long poll early, with the revision unchanged: it is asked again.
        """
        deadline = time.monotonic() + timeout * PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            status = self.status(after=after, timeout=left)
            if status["revision"] > after:
                return status
        raise BedError(f"nothing after revision {after} within {timeout} s\n{self.log}")

    @contextmanager
    def change(self, *, timeout: float = 10.0) -> Iterator[None]:
        """Leave the block only when what was changed in it is applied.

        One atomic change (one `Manifests.write` or `remove`) a block: two may become two
        revisions, and the first of them ends the wait.
        """
        before = self.status()["revision"]
        yield
        self.await_applied(before, timeout=timeout)

    def _where(self) -> list[str]:
        return [
            *(() if self.manifests is None else ("--manifests", str(self.manifests))),
            "--node-name", self.node.name,
            "--node-ip", ",".join(self.node.addresses),
            "--cgroup", str(self.group),
            "--bpffs", str(self.bpffs),
            "--program-cache", str(PROGRAMS),
            "--api-socket", str(self.api_socket),
        ]  # fmt: skip
