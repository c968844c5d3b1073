"""Default routes, and news of routes (rtnetlink(7)), of this thread's network namespace.

By plain messages, since a node that speaks BGP may have a million routes: of each only its header
is looked at. pyroute2 0.9 ends such a dump at its first part without a default route, and so misses
the one of IPv6, which the kernel lists last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NEW, _DELETE, _GET = 24, 25, 26  # RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_MAIN = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_DST, _OIF, _GATEWAY, _MULTIPATH, _VIA = 1, 4, 5, 9, 18  # RTA_*
_SOL_NETLINK, _STRICT = 270, 12  # SOL_NETLINK, NETLINK_GET_STRICT_CHK
_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_HEAD = struct.Struct("=IH10xBB")
"""Length and type of a message (nlmsghdr), then family and prefix length (rtmsg)."""
_KIND = struct.Struct("=16xBBBBBBBBI")
"""Family, prefix lengths, tos, table, protocol, scope, type and flags of a route (rtmsg)."""
_BODY = 28
_HOP = struct.Struct("=HBBi")
"""Length, flags, weight, device of a next hop (rtnexthop)."""


class Default(NamedTuple):
    """One way of a default route: a device by its index, and the gateway there, "" for none."""

    device: int
    gateway: str


def defaults() -> list[Default]:
    """Those of the main table, IPv4 first, with each of several next hops. Raises OSError."""
    return [*_of(socket.AF_INET), *_of(socket.AF_INET6)]


def _of(family: int) -> Iterator[Default]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        # Else the kernel takes no notice of the table, and lists all of them.
        link.setsockopt(_SOL_NETLINK, _STRICT, 1)
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN, 0, 0, 0, 0)
        link.send(struct.pack("=IHHII", 16 + len(body), _GET, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data = link.recv(1 << 18)
            at = 0
            while at + 16 <= len(data):
                length, kind, of, prefix = _HEAD.unpack_from(data.ljust(at + 18), at)
                if kind == _ERROR:
                    _raise(struct.unpack_from("=i", data, at + 16)[0])
                    return
                if kind == _DONE:
                    return
                if not prefix:
                    yield from _ways(data[at : at + length])
                elif of == socket.AF_INET and any(_attributes(data[at : at + length])[_DST]):
                    # IPv4 is listed in the order of addresses (fib_table_dump in fib_trie.c).
                    return
                at += length + 3 & ~3


def _raise(code: int) -> None:
    """No such table is no fault: it comes with its first route."""
    if code and -code != errno.ENOENT:
        raise OSError(-code, f"routes: {os.strerror(-code)}")


def _ways(message: bytes) -> Iterator[Default]:
    if _KIND.unpack_from(message)[7] != _UNICAST:
        return
    found = _attributes(message)
    if _OIF in found:
        yield Default(struct.unpack("=i", found[_OIF])[0], _gateway(found))
    rest = found.get(_MULTIPATH, b"")
    while len(rest) >= _HOP.size:
        length, _, _, device = _HOP.unpack_from(rest)
        yield Default(device, _gateway(_parsed(rest[_HOP.size : length])))
        rest = rest[max(_HOP.size, length + 3 & ~3) :]


def _gateway(attributes: dict[int, bytes]) -> str:
    if _VIA in attributes:  # struct rtvia: a gateway of the other family
        family, address = struct.unpack_from("=H", attributes[_VIA])[0], attributes[_VIA][2:]
        return socket.inet_ntop(family, address)
    raw = attributes.get(_GATEWAY)
    if raw is None:
        return ""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def _attributes(message: bytes) -> dict[int, bytes]:
    return _parsed(message[_BODY:])


def _parsed(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[max(4, length + 3 & ~3) :]
    return found


class News:
    """Says whether any route changed since it was last asked. Opened in the watched namespace.

    What does not fit into the socket is not needed: one change is as good as many.
    """

    def __init__(self) -> None:
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._link.bind((0, _GROUPS))
        self._link.settimeout(0)

    def came(self) -> bool:
        """True: some did. Waits for nothing."""
        found = False
        while True:
            try:
                self._link.recv(1)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: more than fitted
                pass
            found = True

    def close(self) -> None:
        """Hear no more."""
        self._link.close()


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


_ATTACH_FILTER = 26  # SO_ATTACH_FILTER
_LOAD_HALF, _LOAD_BYTE, _IS, _RETURN = 0x28, 0x30, 0x15, 0x06  # linux/filter.h


def only_defaults(link: socket.socket) -> None:
    """Of routes, the socket hears from now on only of default ones; of all else as before.

    In the kernel: so nobody is woken by a router's churn. Raises OSError.
    """
    new, delete = socket.htons(_NEW), socket.htons(_DELETE)
    rows = [
        (_LOAD_HALF, 0, 0, 4), (_IS, 1, 0, new), (_IS, 0, 2, delete), (_LOAD_BYTE, 0, 0, 17),
        (_IS, 0, 1, 0), (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0),
    ]  # fmt: skip
    code = (_Instruction * len(rows))(*[_Instruction(*row) for row in rows])
    program = bytes(_Program(len(rows), code))
    link.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
