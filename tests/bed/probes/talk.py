"""A client that goes on asking until SIGTERM: tcp|udp ADDRESS PORT [--interval S] [--timeout S].

Over one connection it sends a line (tcp) or datagram (udp), awaits the answer, and does so again
every interval. Upon any failure it notes it and connects anew. At SIGTERM it prints

    {"answers": 120, "connects": 2, "servers": {"web-0": 80, "web-1": 40},
     "failures": [{"at": 1.5, "errno": "ECONNREFUSED", "gap": 0.02}],
     "longest": 0.004}

`at` counts seconds from the start. Of failures in a row the last has the `gap`: the seconds from
the first question that failed to the next answer (null: none came yet). `longest` is the longest
wait for an answer that came. On standard error it says `answered` after the first answer, the
first after a failure and the first after SIGUSR1, and the errno of each failure.
"""
# ruff: noqa: T201 - to print is what a probe is for

import argparse
import contextlib
import errno
import json
import signal
import socket
import sys
import time


class Stop(Exception):
    """SIGTERM came."""


class Talk:
    """One conversation over as many connections as it takes."""

    def __init__(self, kind: socket.SocketKind, to: tuple[str, int], timeout: float) -> None:
        self.kind, self.to, self.timeout = kind, to, timeout
        self.started = time.monotonic()
        self.answers = self.connects = 0
        self.servers: dict[str, int] = {}
        self.failures: list[dict[str, object]] = []
        self.longest = 0.0
        self.tell = True
        self.socket: socket.socket | None = None

    def ask(self) -> None:
        """Send one question and note the answer; connects first if need be."""
        if self.socket is None:
            family = socket.AF_INET6 if ":" in self.to[0] else socket.AF_INET
            self.socket = socket.socket(family, self.kind)
            self.socket.settimeout(self.timeout)
            self.socket.connect(self.to)
            self.connects += 1
        self.socket.sendall(b"who?\n")
        said = self.socket.recv(65536)
        if not said:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        text = said.decode()
        name = json.loads(text)["pod"] if text.startswith("{") else text.split()[0]
        self.servers[name] = self.servers.get(name, 0) + 1
        self.answers += 1

    def fail(self, error: OSError, at: float) -> None:
        """Note a failure and drop the connection; the gap stays open."""
        code = errno.errorcode.get(error.errno or errno.ETIMEDOUT)
        self.failures.append({"at": at - self.started, "errno": code, "gap": None})
        print(code, file=sys.stderr, flush=True)
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def run(self, interval: float) -> None:
        """Ask until stopped."""
        failing_since = None
        while True:
            asked = time.monotonic()
            try:
                self.ask()
            except OSError as error:
                failing_since = failing_since or asked
                self.fail(error, asked)
            else:
                now = time.monotonic()
                self.longest = max(self.longest, now - asked)
                if self.tell or failing_since is not None:
                    self.tell = False
                    print("answered", file=sys.stderr, flush=True)
                if failing_since is not None:
                    self.failures[-1]["gap"] = now - failing_since
                    failing_since = None
            time.sleep(interval)


def _stop(*_: object) -> None:
    raise Stop


def _tell(*_: object) -> None:
    talk.tell = True


parser = argparse.ArgumentParser()
parser.add_argument("protocol", choices=["tcp", "udp"])
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("--interval", type=float, default=0.01, help="seconds between questions")
parser.add_argument("--timeout", type=float, default=0.5, help="seconds to wait for an answer")
given = parser.parse_args()
talk = Talk(
    socket.SOCK_STREAM if given.protocol == "tcp" else socket.SOCK_DGRAM,
    (given.address, given.port),
    given.timeout,
)
signal.signal(signal.SIGUSR1, _tell)
signal.signal(signal.SIGTERM, _stop)
with contextlib.suppress(Stop):
    talk.run(given.interval)
report = {name: getattr(talk, name) for name in ("answers", "connects", "servers", "failures")}
print(json.dumps(report | {"longest": talk.longest}))
