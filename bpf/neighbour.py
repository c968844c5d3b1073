"""Next hops, and neighbour entries that the kernel keeps resolved (by pyroute2).

An entry is managed from Linux 5.16 on (NTF_EXT_MANAGED, linux/neighbour.h): the kernel asks for the
neighbour again and again, whether or not anybody sends. An older kernel ignores the flag and asks
once each time it is told to (NTF_USE). Ours bear our number as their origin (NDA_PROTOCOL).
Everything happens in this thread's network namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bpf import routes

__all__ = ["Hop", "NetlinkError", "default_hops", "hops_to", "let_go", "manage", "managed"]

ORIGIN = 116
"""Who made an entry, as rtnetlink(7) numbers routing daemons; ours alone as far as is known."""
_UNICAST = 1  # RTN_UNICAST
_USE = 1  # NTF_USE
_MANAGED = 1  # NTF_EXT_MANAGED
_STATIC = 0x80 | 0x40  # NUD_PERMANENT, NUD_NOARP
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Hop(NamedTuple):
    """A neighbour as text, and the index of the device behind which it is."""

    address: str
    device: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class Known(NamedTuple):
    """The entries that are there, of two sorts."""

    ours: set[Hop]
    """Managed, and made so by us."""
    settled: set[Hop]
    """Somebody's static ones: nobody has to be asked for them."""


def default_hops() -> set[Hop]:
    """The gateways of default routes. Raises OSError."""
    return {Hop(one.gateway, one.device) for one in routes.defaults() if one.gateway}


def hops_to(addresses: Iterable[str]) -> set[Hop]:
    """Where packets to these go next; nothing for those of this node, and without a way.

    Raises OSError, NetlinkError.
    """
    found: set[Hop] = set()
    with IPRoute() as route:
        for address in addresses:
            family = Hop(address, 0).family
            try:
                for message in route.route("get", dst=address, family=family):
                    found.update(_hops(message, address))
            except NetlinkError as error:
                if error.code not in _NO_WAY:
                    raise
    return found


_NO_WAY = (13, 22, 101, 113)
"""EACCES, EINVAL, ENETUNREACH, EHOSTUNREACH: prohibited, a black hole, no route, unreachable."""


def _hops(message: Any, address: str) -> Iterator[Hop]:
    """Of a route; `address` is the neighbour itself where there is no gateway."""
    if message["type"] != _UNICAST:
        return
    for way in (message, *(message.get_attr("RTA_MULTIPATH") or ())):
        device = way.get_attr("RTA_OIF") if way is message else way["oif"]
        via = way.get_attr("RTA_VIA")
        gateway = way.get_attr("RTA_GATEWAY") or (via["addr"] if via else address)
        if device:
            yield Hop(gateway, device)


def managed() -> Known:
    """The entries of all devices. Raises OSError, NetlinkError."""
    known = Known(set(), set())
    with IPRoute() as route:
        for family in _FAMILIES:
            for message in route.get_neighbours(family=family):
                hop = Hop(message.get_attr("NDA_DST") or "", message["ifindex"])
                flags = message.get_attr("NDA_FLAGS_EXT") or 0
                if message["state"] & _STATIC:
                    known.settled.add(hop)
                elif flags & _MANAGED and message.get_attr("NDA_PROTOCOL") == ORIGIN:
                    known.ours.add(hop)
    return known


def manage(hops: Iterable[Hop]) -> None:
    """Have them resolved, now and from now on. Raises OSError, NetlinkError."""
    _tell(hops, NDA_FLAGS_EXT=_MANAGED, NDA_PROTOCOL=ORIGIN)


def let_go(hops: Iterable[Hop]) -> None:
    """Leave them to the kernel's own rules; what is resolved stays so for a while.

    Raises OSError, NetlinkError.
    """
    _tell(hops)


def _tell(hops: Iterable[Hop], **attributes: int) -> None:
    with IPRoute() as route:
        for hop in hops:
            # With NTF_USE the entry keeps its state, whatever `state` says.
            route.neigh(
                "replace", dst=hop.address, ifindex=hop.device, family=hop.family, state=0,
                flags=_USE, **attributes,
            )  # fmt: skip
