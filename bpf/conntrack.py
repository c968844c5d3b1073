"""Connections that another proxy translated: found, forgotten, or taken over from IPVS.

All by connection tracking of this network namespace, over netlink.

IPVS translates by itself and only tells connection tracking who answers (net.ipv4.vs.conntrack,
which kube-proxy sets). Without its virtual server, such a connection is lost. So its entry is
put in as if a rule had translated its first packet, as conntrackd does on another machine.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from pyroute2.conntrack import Conntrack
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_CTNETLINK
from pyroute2.netlink.nfnetlink.nfctsocket import (
    IP_CT_TCP_FLAG_BE_LIBERAL,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_NEW,
    IPS_ASSURED,
    IPS_CONFIRMED,
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    TCP_CONNTRACK_LAST_ACK,
    TCP_CONNTRACK_SYN_RECV,
    NFCTAttrTuple,
    nfct_msg,
)

from bpf.layout import Ends

__all__ = [
    "NetlinkError", "Server", "Through", "Translated", "ends", "forget", "move", "open_from",
    "through", "translated",
]  # fmt: skip

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_TCP = 6
_OPEN = range(TCP_CONNTRACK_SYN_RECV, TCP_CONNTRACK_LAST_ACK + 1)
"""States of TCP in which an end may still send; linux/netfilter/nf_conntrack_tcp.h."""
_V4_MAPPED = bytes(10) + b"\xff\xff"
_NETLINK_NETFILTER = 12  # linux/netlink.h
_ERROR = struct.Struct("=LHHLLi")
"""An answer's header, and its error: linux/netlink.h."""


class Server(NamedTuple):
    """Where a virtual server listens, or an end of a connection: an address as text, and a port."""

    address: str
    port: int


class Through(NamedTuple):
    """A connection through a virtual server."""

    ways: tuple[tuple[Server, Server], tuple[Server, Server]]
    """Where packets come from and go to: the client's, and the answers."""
    asked: Any
    entry: Any
    """Both for `move`."""


class Translated(NamedTuple):
    """A connection whose destination was translated. `frontend`: 16 bytes, IPv4 v4-mapped."""

    protocol: int
    frontend: bytes
    port: int
    key: Any
    """For `forget`."""


def translated() -> Iterator[Translated]:
    """All such connections over TCP or UDP; others are passed over. Raises OSError, NetlinkError.

    The kernel looks through its table for us (CTA_STATUS_MASK, Linux 5.15).
    """
    for message, original, _ in _entries(status=IPS_DST_NAT, status_mask=IPS_DST_NAT):
        if original.dport and message.get_attr("CTA_STATUS") & IPS_DST_NAT:
            frontend = _packed(original.daddr)
            yield Translated(original.proto, frontend, original.dport, original)


def forget(one: Translated) -> bool:
    """The next packet of the connection is a first one; False: it was over. Raises OSError."""
    with Conntrack(nfgen_family=one.key.family) as table:
        try:
            table.entry("del", tuple_orig=one.key)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
            return False
    return True


def ends() -> Iterator[Ends]:
    """Of the open ones over TCP, what their clients' packets bear. Raises likewise."""
    for message, original, _ in _entries(status=IPS_DST_NAT, status_mask=IPS_DST_NAT):
        if message.get_attr("CTA_STATUS") & IPS_DST_NAT and _state(message) in _OPEN:
            addresses = _packed(original.saddr), _packed(original.daddr)
            yield Ends(*addresses, original.sport, original.dport)


def open_from(addresses: Collection[str]) -> int:
    """Translated connections over TCP that are open, from these addresses. Raises likewise."""
    return sum(
        original.saddr in addresses and _state(message) in _OPEN
        for message, original, _ in _entries(status=IPS_DST_NAT, status_mask=IPS_DST_NAT)
    )


def through(ways: Iterable[tuple[Server, Server]]) -> Iterator[Through]:
    """Connections over TCP, given by client and frontend, that no rule translates but IPVS.

    What is over, or was never tracked, is passed over. Raises OSError, NetlinkError.
    """
    known = list(ways)
    for family in _FAMILIES:
        with Conntrack(nfgen_family=family) as table:
            for client, frontend in known:
                if (":" in frontend.address) == (family == socket.AF_INET6):
                    yield from _through(table, family, client, frontend)


def _through(table: Any, family: int, client: Server, frontend: Server) -> Iterator[Through]:
    key = NFCTAttrTuple(family, client.address, frontend.address, _TCP, client.port, frontend.port)
    try:
        message = table.entry("get", tuple_orig=key)[0]
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        return
    if not message.get_attr("CTA_STATUS") & IPS_DST_NAT and _state(message) in _OPEN:
        asked, answered = _tuples(family, message)
        both = ((client, frontend), (_from(answered), _to(answered)))
        yield Through(both, asked, _as_if_translated(message, asked, answered))


def move(connections: Iterable[Through]) -> list[int]:
    """Translate these from now on, whether or not they still have an entry.

    Of each the error's number, 0 where there was none. Raises OSError.
    """
    return [_moved(one.asked, one.entry) for one in connections]


def _entries(**asked: int) -> Iterator[tuple[Any, NFCTAttrTuple, NFCTAttrTuple]]:
    """Those with such a status where the kernel can look for it, and their two directions."""
    for family in _FAMILIES:
        with Conntrack(nfgen_family=family) as table:
            for message in table.dump(**asked):
                yield message, *_tuples(family, message)


def _tuples(family: int, message: Any) -> tuple[NFCTAttrTuple, NFCTAttrTuple]:
    """What the first packet bore, and what its answers bear."""
    original, reply = (
        NFCTAttrTuple.from_netlink(family, message.get_attr(f"CTA_TUPLE_{way}"))
        for way in ("ORIG", "REPLY")
    )
    return original, reply


def _from(way: NFCTAttrTuple) -> Server:
    return Server(way.saddr, way.sport)


def _to(way: NFCTAttrTuple) -> Server:
    return Server(way.daddr, way.dport)


def _state(message: Any) -> int:
    """Of TCP; 0: another protocol's."""
    found = message.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP", "CTA_PROTOINFO_TCP_STATE")
    return int(found or 0)


def _as_if_translated(message: Any, asked: NFCTAttrTuple, answered: NFCTAttrTuple) -> nfct_msg:
    """An entry for what the client asked and who answered, with its translation.

    The numbers of TCP are not known any more, so that none counts as out of its window.
    """
    liberal = (IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_BE_LIBERAL)
    tcp = [
        ("CTA_PROTOINFO_TCP_STATE", _state(message)),
        ("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL", {"value": liberal}),
        ("CTA_PROTOINFO_TCP_FLAGS_REPLY", {"value": liberal}),
    ]
    masquerade = None
    if (answered.daddr, answered.dport) != (asked.saddr, asked.sport):
        masquerade = _end(asked.family, answered.daddr, answered.dport)
    return nfct_msg.create_from(
        tuple_orig=asked,
        tuple_reply=asked.reverse(),
        nat_dst=_end(asked.family, answered.saddr, answered.sport),
        nat_src=masquerade,
        status=IPS_ASSURED | IPS_SEEN_REPLY | IPS_CONFIRMED,
        timeout=message.get_attr("CTA_TIMEOUT"),
        mark=message.get_attr("CTA_MARK") or None,
        protoinfo={"attrs": [("CTA_PROTOINFO_TCP", {"attrs": tcp})]},
    )


def _end(family: int, address: str, port: int) -> dict[str, Any]:
    """What an end is translated to."""
    version = "V6" if family == socket.AF_INET6 else "V4"
    ports = [("CTA_PROTONAT_PORT_MIN", port), ("CTA_PROTONAT_PORT_MAX", port)]
    return {
        "attrs": [
            (f"CTA_NAT_{version}_MINIP", address),
            (f"CTA_NAT_{version}_MAXIP", address),
            ("CTA_NAT_PROTO", {"attrs": ports}),
        ]
    }


def _moved(old: NFCTAttrTuple, new: nfct_msg) -> int:
    """Out, if it is there, and in again; the second one's error."""
    gone = nfct_msg.create_from(tuple_orig=old)
    asked = ((gone, IPCTNL_MSG_CT_DELETE, 0), (new, IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL))
    data = b"".join(_encoded(message, old.family, kind, flags) for message, kind, flags in asked)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(5)
        kernel.send(data)
        _, error = (-_ERROR.unpack_from(kernel.recv(4096))[-1] for _ in asked)
    return int(error)


def _encoded(message: nfct_msg, family: int, kind: int, flags: int) -> bytes:
    message["nfgen_family"] = family
    message["header"]["type"] = NFNL_SUBSYS_CTNETLINK << 8 | kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    message.encode()
    return bytes(message.data)


def _packed(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _V4_MAPPED + socket.inet_pton(socket.AF_INET, text)
