"""Many clients at once: tcp|udp ADDRESS PORT CLIENTS ROUNDS. Each has a socket and a token.

Every client sends its token ROUNDS times, each after the answer to the one before, to `line_echo`
(tcp) or `udp_echo` (udp). Prints

    {"answers": 600, "wrong": 0, "failed": 0, "servers": {"web-0": 600}}

wrong answers hold another client's token, failed clients saw an error or waited 5 s.
"""
# ruff: noqa: T201 - to print is what a probe is for

import json
import selectors
import socket
import sys
import time

protocol, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
clients, rounds = int(sys.argv[4]), int(sys.argv[5])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
seen = {"answers": 0, "wrong": 0, "failed": 0}
servers: dict[str, int] = {}
selector = selectors.DefaultSelector()
left: dict[int, int] = {}


def ask(number: int, client: socket.socket) -> None:
    """One question of one client."""
    client.sendall(f"token-{number}-\n".encode())


def hear(number: int, client: socket.socket) -> None:
    """One answer of one client, and its next question; ends it after the last, or on failure."""
    try:
        text = client.recv(65536).decode()
        pod = json.loads(text)["pod"] if text.startswith("{") else text.split()[0]
        servers[pod] = servers.get(pod, 0) + 1
        seen["answers"] += 1
        seen["wrong"] += f"token-{number}-" not in text
        left[number] -= 1
        if left[number]:
            ask(number, client)
            return
    except (OSError, IndexError):
        seen["failed"] += 1
    selector.unregister(client)
    client.close()
    del left[number]


for index in range(clients):
    one = socket.socket(family, kind)
    one.settimeout(5)
    try:
        one.connect((address, port))
        ask(index, one)
    except OSError:
        seen["failed"] += 1
        continue
    selector.register(one, selectors.EVENT_READ, index)
    left[index] = rounds
deadline = time.monotonic() + 5
while left and time.monotonic() < deadline:
    for key, _ in selector.select(deadline - time.monotonic()):
        assert isinstance(key.fileobj, socket.socket)
        hear(key.data, key.fileobj)
seen["failed"] += len(left)
print(json.dumps(seen | {"servers": servers}))
