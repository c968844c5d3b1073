"""What IPVS and ipset hold in this network namespace, and its devices, over netlink.

Only what is needed to come after another proxy: its virtual servers and its sets. On a kernel
without one of these there is nothing to find.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2.iproute.linux import IPRoute
from pyroute2.ipset import IPSet, IPSetError
from pyroute2.ipvs import IPVS, IPVSService
from pyroute2.netlink.exceptions import NetlinkError

from bpf.conntrack import Server

__all__ = [
    "NetlinkError", "active_connections", "addresses_of", "has_virtual_servers", "remove_device",
    "remove_sets", "remove_virtual_servers", "virtual_servers",
]  # fmt: skip

_TCP = 6
_NO_SUCH = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL)


def active_connections() -> int:
    """Those over TCP that go on through virtual servers at this namespace's own addresses.

    0 where the kernel has no IPVS. Call it, and the three below, only where IPVS was in use: to ask
    for it loads its module. Raises OSError, NetlinkError.
    """
    with _ipvs() as servers:
        return sum(
            message.get_nested("IPVS_CMD_ATTR_DEST", "IPVS_DEST_ATTR_ACTIVE_CONNS") or 0
            for service in _own(servers)
            for message in list(servers.dest("dump", service=service))
        )


def virtual_servers() -> set[Server]:
    """The same servers, those of TCP. Raises likewise."""
    with _ipvs() as servers:
        return {
            Server(one["addr"], one["port"]) for one in _own(servers) if one["protocol"] == _TCP
        }


def has_virtual_servers() -> bool:
    """Any of these, of whatever protocol. Raises likewise."""
    with _ipvs() as servers:
        return bool(_own(servers))


def remove_virtual_servers() -> int:
    """Those of IPVS whose address is one of this namespace's own; how many. Raises likewise."""
    with _ipvs() as servers:
        own = _own(servers)
        for service in own:
            servers.service("del", service=service)
        return len(own)


@contextmanager
def _ipvs() -> Iterator[Any]:
    """The door to IPVS; None where the kernel has none."""
    try:
        servers = IPVS()
    except NetlinkError as error:
        if error.code not in _NO_SUCH:
            raise
        yield None
        return
    with servers:
        yield servers


def _own(servers: Any) -> list[Any]:
    """Others may have servers by mark, or at addresses that packets only pass by."""
    if servers is None:
        return []
    with IPRoute() as route:
        own = {message.get("local") or message.get("address") for message in route.get_addr()}
    found = []
    for message in list(servers.service("dump")):
        service = message.get_attr("IPVS_CMD_ATTR_SERVICE")
        address, port, protocol = (
            service.get_attr(f"IPVS_SVC_ATTR_{name}") for name in ("ADDR", "PORT", "PROTOCOL")
        )
        if address in own:
            found.append(IPVSService(addr=address, port=port, protocol=protocol))
    return found


def addresses_of(device: str) -> set[str]:
    """As text; none where it is not there. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        return {
            address
            for index in route.link_lookup(ifname=device)
            for message in route.get_addr(index=index)
            if (address := message.get("local") or message.get("address"))
        }


def remove_device(name: str) -> bool:
    """False: it was not there. Raises OSError, NetlinkError."""
    with IPRoute() as route:
        found = route.link_lookup(ifname=name)
        for index in found:
            route.link("del", index=index)
    return bool(found)


def remove_sets(names: Collection[str]) -> list[str]:
    """Those of these sets that are there and that no rule uses. Raises OSError."""
    try:
        with IPSet() as sets:
            present = [message.get_attr("IPSET_ATTR_SETNAME") for message in sets.list()]
            return [name for name in present if name in names and _destroyed(sets, name)]
    except (NetlinkError, IPSetError) as error:
        if error.code in _NO_SUCH:
            return []
        raise OSError(error.code, f"sets: {error}") from error


def _destroyed(sets: IPSet, name: str) -> bool:
    try:
        sets.destroy(name)
    except (NetlinkError, IPSetError):
        return False  # a rule of somebody's uses it
    return True
