"""Traffic at a bandwidth limit: who sends, what arrives, how long a small request takes.

Rates are bits per second of frames as the receiver's device counts them. What the tests of pacing
and the benchmark share; asserts nothing.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bed import Host, until
from tests.bed.cgroup import inside

PORT, ECHO_PORT = 5201, 7007
START_SECONDS = 20.0
"""For a sender to get going, in an emulated machine with a busy host."""
AT_FIRST = 100_000
"""Bytes that have arrived once it has."""

_ECHO = f"""
import socket, threading
def serve(one):
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := one.recv(4096):
        one.sendall(data)
door = socket.create_server(("::", {ECHO_PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
"""
_ASK = f"""
import json, socket, sys, time
to, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
longest, times = float(sys.argv[4]), []
try:
    one = socket.create_connection((to, {ECHO_PORT}), timeout=longest)
except TimeoutError:  # so long it takes at least
    print(json.dumps([longest]))
    sys.exit()
one.settimeout(None)
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
end = time.monotonic() + longest
while len(times) < count and time.monotonic() < end:
    start, left = time.perf_counter(), 64
    one.sendall(bytes(64))
    while left:
        left -= len(one.recv(left))
    times.append(time.perf_counter() - start)
    time.sleep(pause)
print(json.dumps(times))
"""


class Latency(NamedTuple):
    """Of requests with one small packet each way, in ms."""

    count: int
    p50: float
    p99: float


def serve(host: Host) -> None:
    """What senders and askers talk to."""
    host.spawn(
        "iperf3", "-s", "-p", str(PORT), ready=lambda one: host.listens(one, PORT, "tcp6"),
        timeout=START_SECONDS,
    )  # fmt: skip
    host.spawn(
        sys.executable, "-IS", "-c", _ECHO, timeout=START_SECONDS,
        ready=lambda one: host.listens(one, ECHO_PORT, "tcp6"),
    )  # fmt: skip


def received(host: Host, device: str = "eth0") -> int:
    """Bytes of frames that a device has received."""
    table = host.run("cat", "/proc/net/dev").stdout.splitlines()
    row = next(line for line in table if line.strip().startswith(f"{device}:"))
    return int(row.partition(":")[2].split()[0])


@contextmanager
def sending(
    sender: Host, receiver: Host, to: str, *args: str, group: Path | None = None
) -> Iterator[None]:
    """iperf3 meanwhile, in a cgroup; begins once some of it has arrived. `-R` turns it round."""
    arrives = sender if "-R" in args else receiver
    before = received(arrives)
    run = ("iperf3", "-c", to, "-p", str(PORT), "-t", "600", *args)
    one = sender.spawn(*(inside(group, *run) if group else run))
    try:
        until(
            lambda: received(arrives) - before > AT_FIRST, "traffic",
            timeout=START_SECONDS, process=one,
        )  # fmt: skip
        yield
    finally:
        one.end()


def rate(host: Host, seconds: float, device: str = "eth0") -> float:
    """What arrives, on average over so many seconds."""
    before, start = received(host, device), time.monotonic()
    time.sleep(seconds)
    return (received(host, device) - before) * 8 / (time.monotonic() - start)


def closest(host: Host, asked: float, *, seconds: float = 5.0, windows: int = 4) -> float:
    """The rate of the first window that is within 1 % of what was asked, else of the closest one.

    An emulated machine stands still now and then, and what nobody sent meanwhile is not made up
    for; a limit that does not hold is off in every window.
    """
    best = math.inf
    for _ in range(windows):
        best = min(best, rate(host, seconds), key=lambda one: abs(one - asked))
        if abs(best - asked) <= asked / 100:
            break
    return best


def latency(
    asker: Host, to: str, *, count: int = 200, pause: float = 0.01, seconds: float = 20.0
) -> Latency:
    """How long small requests take: so many, or as many as there are in this time."""
    text = [str(count), str(pause), str(seconds)]
    times = sorted(asker.python(_ASK, to, *text, timeout=60))
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return Latency(len(times), p50 * 1000, p99 * 1000)
