"""This network namespace's addresses, and a wait for their changes (rtnetlink(7), by pyroute2)."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable
from typing import NamedTuple

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

__all__ = ["Held", "NetlinkError", "Watch", "addresses", "default_devices", "devices_to"]

_UNICAST = 1  # RTN_UNICAST
_V4_MAPPED = bytes(10) + b"\xff\xff"


class Held(NamedTuple):
    """An address of a device: 16 bytes, IPv4 v4-mapped."""

    address: bytes
    device: str


def _packed(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _V4_MAPPED + socket.inet_pton(socket.AF_INET, text)


def addresses() -> list[Held]:
    """All addresses of all devices, loopback included. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        names = {link["index"]: link.get("ifname") for link in route.get_links()}
        found = []
        for message in route.get_addr():
            text = message.get("local") or message.get("address")
            if text:
                found.append(Held(_packed(text), names.get(message["index"]) or ""))
    return found


def default_devices() -> list[str]:
    """The devices that hold a default route, IPv4 first. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        names = {link["index"]: link.get("ifname") for link in route.get_links()}
        found: dict[str, None] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in route.get_default_routes(family=family):
                device = names.get(message.get("oif"))
                if device:
                    found[device] = None
    return list(found)


def devices_to(addresses: Iterable[bytes]) -> dict[bytes, set[str]]:
    """The devices that lead to each neighbour: the route's, or a bridge's ports.

    None where no route leads there, and where it is this node itself. Raises OSError, NetlinkError.
    """
    with IPRoute() as route:
        links = route.get_links()
        names = {link["index"]: link.get("ifname") or "" for link in links}
        ports: dict[int, set[str]] = {}
        for link in links:
            ports.setdefault(link.get("master"), set()).add(names[link["index"]])
        ways = {one: _way(route, one) for one in addresses}
    return {
        address: set() if way is None else ports.get(way) or {names[way]}
        for address, way in ways.items()
    }


def _way(route: IPRoute, address: bytes) -> int | None:
    """The index of the device towards an address; None: there is none."""
    is_v4 = address.startswith(_V4_MAPPED)
    text = socket.inet_ntop(
        *((socket.AF_INET, address[12:]) if is_v4 else (socket.AF_INET6, address))
    )
    try:
        found = route.route("get", dst=text)
    except NetlinkError as error:
        if error.code in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES}:
            return None
        raise
    return next((one.get("oif") for one in found if one["type"] == _UNICAST), None)


class Watch:
    """Says when devices, addresses or routes changed. Opened in the namespace that is watched."""

    def __init__(self) -> None:
        groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
        groups |= RTMGRP_LINK
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._link.bind((0, groups))
        self._link.settimeout(0)

    def wait(self, seconds: float) -> bool:
        """True: something changed; what, is for `addresses` to say."""
        if not select.select([self._link], [], [], seconds)[0]:
            return False
        while True:
            try:
                self._link.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:  # ENOBUFS: some were lost, and all are read anew anyway
                continue
