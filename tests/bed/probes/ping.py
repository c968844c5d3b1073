"""Echo requests: [OPTION...] ADDRESS COUNT ...

Prints a list, one row a request: `from`, who answered within `--timeout` seconds, or null. The
answer has to be the request's own, with all of its `--size` octets.
"""
# ruff: noqa: T201 - to print is what a probe is for

import argparse
import json
import os
import socket
import struct
import time


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - (total & 0xFFFF) - (total >> 16)


def request(number: int, size: int, *, v6: bool) -> bytes:
    """An echo request; the kernel makes the checksum of ICMPv6."""
    rest = struct.pack("!HH", os.getpid() & 0xFFFF, number) + os.urandom(size)
    kind = bytes([128 if v6 else 8, 0])
    return kind + struct.pack("!H", checksum(kind + rest)) + rest


def ask(raw: socket.socket, to: str, number: int, given: argparse.Namespace) -> str | None:
    """Who answers."""
    v6 = ":" in to
    sent = request(number, given.size, v6=v6)
    raw.sendto(sent, (to, 0))
    deadline = time.monotonic() + given.timeout
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            data, sender = raw.recvfrom(65536)
        except TimeoutError:
            break
        said = data if v6 else data[(data[0] & 15) * 4 :]
        if said[0] == (129 if v6 else 0) and said[4:] == sent[4:]:
            return str(sender[0])
    return None


parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("count", type=int)
parser.add_argument("--size", type=int, default=56)
parser.add_argument("--timeout", type=float, default=2.0)
given = parser.parse_args()
is_v6 = ":" in given.address
with socket.socket(
    socket.AF_INET6 if is_v6 else socket.AF_INET,
    socket.SOCK_RAW,
    socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP,
) as opened:
    rows = [ask(opened, given.address, number, given) for number in range(given.count)]
    print(json.dumps([{"from": one} for one in rows]))
