"""This network namespace's addresses, and a wait for their changes (rtnetlink(7), by pyroute2)."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
    RTMGRP_TC,
)

from bpf import routes

__all__ = [
    "Held",
    "Link",
    "NetlinkError",
    "Watch",
    "Way",
    "addresses",
    "default_devices",
    "device",
    "devices_to",
    "links",
    "names",
    "ports_of",
    "way_to",
    "wired",
]

_ETHERNET = 1  # ARPHRD_ETHER
_LOCAL_ROUTE = 2  # RTN_LOCAL; linux/rtnetlink.h
_UNICAST = 1  # RTN_UNICAST
_V4_MAPPED = bytes(10) + b"\xff\xff"


class Held(NamedTuple):
    """An address of a device: 16 bytes, IPv4 v4-mapped."""

    address: bytes
    device: str


class Way(NamedTuple):
    """The device that leads somewhere; `mac` is its own address, zeros where it has none."""

    device: str
    number: int
    """Its index."""
    mac: bytes
    is_local: bool
    """The address is this network namespace's own."""


def device(name: str) -> Way | None:
    """A device by its name; None: it is not there. Raises OSError."""
    with IPRoute() as route:
        for link in route.get_links():
            if link.get("ifname") == name:
                return _leading(link, is_local=False)
    return None


def ports_of(bridge: str) -> set[str]:
    """The names of a bridge's ports; none of what is no bridge. Raises OSError."""
    index = socket.if_nametoindex(bridge)
    with IPRoute() as route:
        return {one.get("ifname") or "" for one in route.get_links() if one.get("master") == index}


def _leading(link: Any, *, is_local: bool) -> Way:
    mac = bytes.fromhex((link.get("address") or "00:00:00:00:00:00").replace(":", ""))
    return Way(link.get("ifname") or "", link["index"], mac[:6].ljust(6, b"\0"), is_local)


def wired(paths: Iterable[Path]) -> list[Path]:
    """Those of the network namespaces that some device of this one leads into (a veth's peer).

    Raises OSError, NetlinkError.
    """
    with IPRoute() as route:
        peers = {link.get("link_netnsid") for link in route.get_links()} - {None}
        found = []
        for path in paths:
            with suppress(OSError), path.open() as namespace:
                if route.get_netnsid(fd=namespace.fileno())["nsid"] in peers:
                    found.append(path)
        return found


def way_to(address: str) -> Way | None:
    """How this network namespace reaches an address; None: not at all. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with IPRoute() as route:
        try:
            (found,) = route.route("get", dst=address, family=family)
        except (NetlinkError, ValueError):
            return None
        (link,) = route.get_links(found.get("oif"))
        return _leading(link, is_local=found["type"] == _LOCAL_ROUTE)


def _packed(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _V4_MAPPED + socket.inet_pton(socket.AF_INET, text)


class Link(NamedTuple):
    """A device. `kind` is rtnetlink's word (veth, bridge, tun), "" for hardware."""

    name: str
    kind: str
    is_ethernet: bool
    master: int = 0
    """The index of the bridge that it is a port of; 0: of none."""


def names() -> dict[int, str]:
    """All devices by index. pyroute2 would take 0.6 ms for each. Raises OSError."""
    return dict(socket.if_nameindex())


def links(indexes: Iterable[int]) -> dict[int, Link]:
    """These devices, without those that are gone. Raises OSError, NetlinkError."""
    found = {}
    with IPRoute() as route:
        for index in indexes:
            try:
                (link,) = route.link("get", index=index)
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    continue
                raise
            info = link.get_attr("IFLA_LINKINFO")
            found[index] = Link(
                link.get_attr("IFLA_IFNAME"),
                (info.get_attr("IFLA_INFO_KIND") if info is not None else "") or "",
                link["ifi_type"] == _ETHERNET,
                link.get_attr("IFLA_MASTER") or 0,
            )
    return found


def of_kind(*kinds: str) -> dict[str, int]:
    """The index of each device of these kinds, by name. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        return {
            link.get_attr("IFLA_IFNAME"): link["index"]
            for kind in kinds
            for link in route.link("dump", kind=kind)
        }


def addresses() -> list[Held]:
    """All addresses of all devices, loopback included. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        devices = names()
        found = []
        for message in route.get_addr():
            text = message.get("local") or message.get("address")
            if text:
                found.append(Held(_packed(text), devices.get(message["index"]) or ""))
    return found


def default_devices() -> list[str]:
    """The devices that hold a default route, IPv4 first. Raises OSError."""
    devices = names()
    ways = routes.defaults()
    return list(dict.fromkeys([devices[one.device] for one in ways if one.device in devices]))


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
    """Says when devices, filters, addresses or default routes changed.

    Opened in the watched namespace.
    """

    def __init__(self) -> None:
        groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
        groups |= RTMGRP_LINK | RTMGRP_TC
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        routes.only_defaults(self._link)
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

    def close(self) -> None:
        """Hear no more."""
        self._link.close()
