"""Numbered datagrams to `udp_echo`, many on their way at once: ADDRESS PORT [OPTION...].

Sends `--count` of `--size` octets, or goes on until SIGTERM; never more than `--window` are
unanswered, and never more than `--rate` a second are sent. After `--flow` of them it goes on from
another socket, so that flows begin all the time. Each has its own text, which must come back. It
says `answered` on standard error after the first answer, and at the end prints

    {"sent": 8000, "answered": 7999, "wrong": 0, "servers": {"web-0": 7999}, "lost": [1.3]}

`lost` is when each was sent that had no answer within 2 s, in seconds from the start. The window
goes on without it.
"""
# ruff: noqa: T201 - to print is what a probe is for

import argparse
import json
import random
import selectors
import signal
import socket
import sys
import time

SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; Python has no name for it
LOST = 2.0
parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("--count", type=int, default=0)
parser.add_argument("--size", type=int, default=200)
parser.add_argument("--window", type=int, default=32)
parser.add_argument("--rate", type=float, default=1e6)
parser.add_argument("--flow", type=int, default=1 << 30)
given = parser.parse_args()

letters = random.Random(5).randbytes(given.size).hex()[: given.size]
waiting: dict[int, float] = {}
servers: dict[str, int] = {}
lost: list[float] = []
seen = {"sent": 0, "answered": 0, "wrong": 0}
selector = selectors.DefaultSelector()
ended = False


def end(*_: object) -> None:
    """No further datagram; those on their way are awaited."""
    global ended  # noqa: PLW0603
    ended = True


def text_of(number: int) -> str:
    """As long as asked for, no two alike."""
    head = f"{number}:"
    turn = number % given.size
    return (head + letters[turn:] + letters[:turn])[: given.size]


def opened() -> socket.socket:
    """Another flow; the answers of those before are still heard."""
    family = socket.AF_INET6 if ":" in given.address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    made.connect((given.address, given.port))
    made.settimeout(0)
    selector.register(made, selectors.EVENT_READ)
    return made


def hear(timeout: float) -> None:
    """All answers that are there, or come within `timeout` seconds."""
    for key, _ in selector.select(timeout):
        assert isinstance(key.fileobj, socket.socket)
        try:
            said = json.loads(key.fileobj.recv(65536))
        except OSError:
            continue
        number = int(said["text"].partition(":")[0])
        if waiting.pop(number, None) is None or said["text"] != text_of(number):
            seen["wrong"] += 1
            continue
        if not seen["answered"]:
            print("answered", file=sys.stderr, flush=True)
        seen["answered"] += 1
        servers[said["pod"]] = servers.get(said["pod"], 0) + 1


signal.signal(signal.SIGTERM, end)
sockets = [opened()]
start = time.monotonic()
while not ended and not seen["sent"] == given.count > 0:
    now = time.monotonic()
    late = [number for number, sent in waiting.items() if sent < now - LOST]
    lost += [round(waiting.pop(number) - start, 2) for number in late]
    due = start + seen["sent"] / given.rate
    if len(waiting) >= given.window or due > now:
        hear(0.1 if due <= now else min(0.1, due - now))
        continue
    if seen["sent"] % given.flow == given.flow - 1:
        sockets.append(opened())
    sockets[-1].send(text_of(seen["sent"]).encode())
    waiting[seen["sent"]] = now
    seen["sent"] += 1
deadline = time.monotonic() + LOST
while waiting and time.monotonic() < deadline:
    hear(deadline - time.monotonic())
lost += [round(sent - start, 2) for sent in waiting.values()]
print(json.dumps(seen | {"servers": servers, "lost": lost}))
