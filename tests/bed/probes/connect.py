"""TCP connects, one after another: [OPTION...] ADDRESS PORT [COUNT].

Prints a list, one row a connect: errno (a name, or null), seconds, peer and local as the socket
shows them, and what the server said to a GET. `--mapped` goes through an IPv6 socket to
::ffff:ADDRESS; `--source` is the client's address.
"""
# ruff: noqa: T201 - to print is what a probe is for

import argparse
import errno
import json
import socket
import time


def connect(
    to: tuple[str, int], family: socket.AddressFamily, timeout: float, source: str
) -> dict[str, object]:
    """One connection, from connect to close."""
    row: dict[str, object] = {"errno": None, "peer": None, "local": None, "said": None}
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        if source:
            client.bind((source, 0))
        started = time.monotonic()
        try:
            client.connect(to)
            row["seconds"] = time.monotonic() - started
            row["peer"] = client.getpeername()[:2]
            row["local"] = client.getsockname()[:2]
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = b"".join(iter(lambda: client.recv(65536), b""))
            row["said"] = said.partition(b"\r\n\r\n")[2].decode().strip()
        except OSError as error:
            row.setdefault("seconds", time.monotonic() - started)
            row["errno"] = errno.errorcode.get(error.errno or errno.ETIMEDOUT)
    return row


parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("count", type=int, nargs="?", default=1)
parser.add_argument("--mapped", action="store_true")
parser.add_argument("--source", default="", help="own address")
parser.add_argument("--timeout", type=float, default=2.0, help="seconds")
given = parser.parse_args()
target = f"::ffff:{given.address}" if given.mapped else given.address
kind = socket.AF_INET6 if ":" in target else socket.AF_INET
rows = [
    connect((target, given.port), kind, given.timeout, given.source) for _ in range(given.count)
]
print(json.dumps(rows))
