"""UDP from one socket to several servers: [OPTION...] ADDRESS PORT ...

Prints a list, one row a datagram: errno (a name, or null), `from`, the peer that recvfrom shows,
`peer`, what getpeername shows (null when unconnected), `local`, the socket's own end, and `said`,
the answer. All datagrams
leave the one socket, in order, each after the answer to the one before. `--connect` connects the
socket anew for each; `--mapped` sends to ::ffff:ADDRESS by an IPv6 socket; `--source` is its own
address, `--source-port` its own port. `--size` is the length of what is sent, in octets.
"""
# ruff: noqa: T201 - to print is what a probe is for

import argparse
import errno
import json
import socket


def ask(
    client: socket.socket, to: tuple[str, int], text: bytes, *, connect: bool
) -> dict[str, object]:
    """One datagram and its answer."""
    row: dict[str, object] = {"errno": None, "from": None, "peer": None, "said": None}
    try:
        if connect:
            client.connect(to)
            row["peer"] = client.getpeername()[:2]
            client.send(text)
        else:
            client.sendto(text, to)
        said, sender = client.recvfrom(65536)
        row |= {"from": sender[:2], "said": said.decode()}
    except OSError as error:
        row["errno"] = errno.errorcode.get(error.errno or errno.ETIMEDOUT)
    row["local"] = client.getsockname()[:2]
    return row


parser = argparse.ArgumentParser()
parser.add_argument("target", nargs="+", help="ADDRESS PORT pairs")
parser.add_argument("--connect", action="store_true")
parser.add_argument("--mapped", action="store_true")
parser.add_argument("--source", default="", help="own address")
parser.add_argument("--source-port", type=int, default=0)
parser.add_argument("--timeout", type=float, default=2.0, help="seconds")
parser.add_argument("--size", type=int, default=4)
given = parser.parse_args()
prefix = "::ffff:" if given.mapped else ""
pairs = [
    (prefix + address, int(port))
    for address, port in zip(given.target[::2], given.target[1::2], strict=True)
]
family = socket.AF_INET6 if ":" in pairs[0][0] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.settimeout(given.timeout)
    if given.source or given.source_port:
        sender.bind((given.source, given.source_port))
    text = b"who?".ljust(given.size, b".")
    print(json.dumps([ask(sender, pair, text, connect=given.connect) for pair in pairs]))
