"""Reads, puts and takes off queues of devices (rtnetlink(7)), in this thread's network namespace.

By plain messages: pyroute2 knows no `fq`. What to put where is decided in `bandwidth.queues`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

ROOT = 0xFFFFFFFF
"""The parent of a device's own queue (TC_H_ROOT)."""
FQ = "fq"
_NEW, _DELETE, _GET = 36, 37, 38  # RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC
_REQUEST, _ACK, _DUMP, _CREATE, _REPLACE = 0x1, 0x4, 0x300, 0x400, 0x100
_ERROR, _DONE = 2, 3
_KIND, _OPTIONS, _NESTED = 1, 2, 0x8000  # TCA_KIND, TCA_OPTIONS, NLA_F_NESTED
_STATS, _STATS_APP, _THROTTLED = 7, 4, 24  # TCA_STATS2, TCA_STATS_APP, in struct tc_fq_qd_stats
_CLONE_NEWNET = 0x40000000
_ENOENT, _EINVAL = 2, 22
_LOOPBACK = 1

PARAMETERS = {1: 100_000, 2: 50_000, 14: 2_000_000}
"""Packets in all, packets of a flow, horizon in µs (TCA_FQ_*, linux/pkt_sched.h).

fq's own bound of 100 packets a flow starves UDP that has to wait; how much waits is bounded by
each limit itself."""


class Queue(NamedTuple):
    """A qdisc of a device (rtnetlink's tcmsg)."""

    kind: str
    handle: int
    parent: int


def has_fq() -> bool:
    """Does this kernel have fq? Asked by using it, in a namespace that is gone at once."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(_try()))
    thread.start()
    thread.join()
    return found == [True]


def _try() -> bool:
    """In a thread of its own, whose namespace goes with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        return False
    try:
        put(_LOOPBACK, Queue(FQ, 0, ROOT))
    except OSError:
        return False
    return True


def queues() -> dict[int, list[Queue]]:
    """All queues of all devices, by index. Raises OSError."""
    found: dict[int, list[Queue]] = {}
    for kind, body in _ask(_GET, _DUMP, struct.pack("=Bxxxi3I", 0, 0, 0, 0, 0)):
        if kind == _NEW:
            index, handle, parent = struct.unpack_from("=4xi2I", body)
            name = dict(_attributes(body[20:])).get(_KIND, b"").rstrip(b"\0").decode()
            found.setdefault(index, []).append(Queue(name, handle, parent))
    return found


def held_back() -> dict[int, int]:
    """How often fq made a packet wait, of all queues of a device, by its index. Raises OSError."""
    found: dict[int, int] = {}
    for kind, body in _ask(_GET, _DUMP, struct.pack("=Bxxxi3I", 0, 0, 0, 0, 0)):
        attributes = dict(_attributes(body[20:])) if kind == _NEW else {}
        if attributes.get(_KIND) == FQ.encode() + b"\0":
            index = struct.unpack_from("=4xi", body)[0]
            stats = dict(_attributes(attributes.get(_STATS, b""))).get(_STATS_APP, b"")
            if len(stats) >= _THROTTLED + 8:
                count = struct.unpack_from("=Q", stats, _THROTTLED)[0]
                found[index] = found.get(index, 0) + count
    return found


def put(index: int, queue: Queue) -> None:
    """Puts a queue in the place of what is there; handle 0: any. Raises OSError."""
    body = struct.pack("=Bxxxi3I", 0, index, queue.handle, queue.parent, 0)
    body += _attribute(_KIND, queue.kind.encode() + b"\0")
    if queue.kind == FQ:
        options = b"".join(_attribute(k, struct.pack("=I", v)) for k, v in PARAMETERS.items())
        body += _attribute(_OPTIONS | _NESTED, options)
    list(_ask(_NEW, _ACK | _CREATE | _REPLACE, body))


def take_off(index: int, handle: int) -> bool:
    """Takes the root off if it has that handle; the kernel puts its default back. False: not.

    Raises OSError.
    """
    try:
        list(_ask(_DELETE, _ACK, struct.pack("=Bxxxi3I", 0, index, handle, ROOT, 0)))
    except OSError as error:
        if error.errno in {_ENOENT, _EINVAL}:  # none there, or another's
            return False
        raise
    return True


def _ask(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The answers to one request, with their types. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        link.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, 1, 0) + body)
        while True:
            data = link.recv(1 << 18)
            for answer, content in _messages(data):
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise OSError(code, f"qdisc: {os.strerror(code)}")
                    return
                if answer == _DONE:
                    return
                yield answer, content


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[length + 3 & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[max(4, length + 3 & ~3) :]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
