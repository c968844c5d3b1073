"""Ethernet frames of TCP and UDP over IPv4 and IPv6: made up from a few words, and read again.

Pure, and no more than `explain` needs: a first packet of a connection, and who sends what to whom.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lb.address import MAPPED, Address, Family, family
from lb.errors import BadInput
from lb.model import Dispatch, Protocol

_IPV4, _IPV6 = 0x0800, 0x86DD
_IPV4_IN, _IPV6_IN = 4, 41  # IPPROTO_IPIP, IPPROTO_IPV6
_MARKED, _MARK_V4 = 0x48, b"\x9e\x0c"
"""The first octet of an IPv4 header with a mark, and how that begins (bpf/mark.h)."""
_OPTIONS, _MARK_V6 = 60, b"\x04\x5e\x24"
_NEIGHBOUR = bytes.fromhex("02000000fe01")
_SYN = 2
_ETHER, _TCP, _UDP = 14, 20, 8
_FRAGMENT = 0x1FFF


class Ends(NamedTuple):
    """Who sends what to whom. Ports in host order."""

    protocol: Protocol
    source: Address
    source_port: int
    destination: Address
    destination_port: int


def _sum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(ends: Ends, mac: bytes) -> bytes:
    """The first packet of a connection, to the device with this address; checksums are right."""
    protocol, source, sport, destination, dport = ends
    v4 = family(source) is Family.IPV4
    near, far = (source[12:], destination[12:]) if v4 else (source, destination)
    if protocol is Protocol.TCP:
        l4 = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, _TCP << 2, _SYN, 64240, 0, 0)
    else:
        l4 = struct.pack("!HHHH", sport, dport, _UDP, 0)
    pseudo = near + far + struct.pack("!IHBB", len(l4), 0, 0, protocol)
    if v4:
        pseudo = near + far + struct.pack("!BBH", 0, protocol, len(l4))
    at = 16 if protocol is Protocol.TCP else 6
    check = _sum(pseudo + l4) or (0xFFFF if protocol is Protocol.UDP else 0)
    l4 = l4[:at] + check.to_bytes(2) + l4[at + 2 :]
    if v4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 1, 0, 64, protocol, 0) + near + far
        ip = ip[:10] + _sum(ip).to_bytes(2) + ip[12:]
    else:
        ip = struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64) + near + far
    return mac + _NEIGHBOUR + (_IPV4 if v4 else _IPV6).to_bytes(2) + ip + l4


def read(frame: bytes) -> Ends | None:
    """The ends of a frame; None: it is neither TCP nor UDP, or cut short, or a later fragment."""
    kind = int.from_bytes(frame[12:14])
    if kind == _IPV4 and len(frame) >= _ETHER + 20:
        start = _ETHER + (frame[_ETHER] & 15) * 4
        number = frame[_ETHER + 9]
        source, destination = (Address(MAPPED + frame[i : i + 4]) for i in (26, 30))
        if int.from_bytes(frame[20:22]) & _FRAGMENT:
            return None
    elif kind == _IPV6 and len(frame) >= _ETHER + 40:
        start, number = _ETHER + 40, frame[_ETHER + 6]
        source, destination = (Address(frame[i : i + 16]) for i in (22, 38))
    else:
        return None
    if number not in (Protocol.TCP, Protocol.UDP) or len(frame) < start + 4:
        return None
    sport, dport = struct.unpack_from("!HH", frame, start)
    return Ends(Protocol(number), source, sport, destination, dport)


class Wrapped(NamedTuple):
    """Where a packet that is handed to a backend's node goes (bpf/tunnel.h, bpf/mark.h)."""

    source: Address
    backend: Address
    port: int
    dispatch: Dispatch


def wrapped(frame: bytes) -> Wrapped | None:
    """IP in IP of one family (RFC 2003, RFC 2473), or a packet with a mark; None: it is neither."""
    kind = int.from_bytes(frame[12:14])
    if kind == _IPV4 and len(frame) >= _ETHER + 36:
        source, backend = (Address(MAPPED + frame[i : i + 4]) for i in (26, 30))
        if frame[_ETHER + 9] == _IPV4_IN:
            return Wrapped(source, backend, int.from_bytes(frame[18:20]), Dispatch.IPIP)
        if frame[_ETHER] == _MARKED and frame[_ETHER + 20 : _ETHER + 22] == _MARK_V4:
            port = int.from_bytes(frame[_ETHER + 34 : _ETHER + 36])
            return Wrapped(source, backend, port, Dispatch.OPT)
    if kind == _IPV6 and len(frame) >= _ETHER + 84:
        source, backend = (Address(frame[i : i + 16]) for i in (22, 38))
        if frame[_ETHER + 6] == _IPV6_IN:
            return Wrapped(source, backend, int.from_bytes(frame[16:18]), Dispatch.IPIP)
        if frame[_ETHER + 6] == _OPTIONS and frame[_ETHER + 41 : _ETHER + 44] == _MARK_V6:
            port = int.from_bytes(frame[_ETHER + 82 : _ETHER + 84])
            return Wrapped(source, backend, port, Dispatch.OPT)
    return None


def readdressed(frame: bytes, mac: bytes) -> bytes:
    """The same frame, sent to the device with this address."""
    return mac + frame[6:]


_ORDERS = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">",
           b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\x3c\x4d": ">"}  # fmt: skip
"""Byte orders by magic number, of micro- and of nanoseconds (draft-ietf-opsawg-pcap)."""
_ETHERNET, _RAW = 1, {101, 228, 229}
"""LINKTYPE_*: Ethernet; IP without a link header."""


def captured(raw: bytes, name: str) -> list[bytes]:
    """The Ethernet frames of a pcap file. Raises BadInput, naming the file, where it is none.

    Packets without a link header get one.
    """
    order = _ORDERS.get(raw[:4])
    if order is None:
        raise BadInput(f"--capture {name}: no pcap file; pcapng: tcpdump -r {name} -w OTHER.pcap")
    if len(raw) < 24:
        raise BadInput(f"--capture {name}: it is cut short")
    (link,) = struct.unpack_from(order + "I", raw, 20)
    link &= 0xFFFF
    if link != _ETHERNET and link not in _RAW:
        raise BadInput(f"--capture {name}: of link type {link}; capture on a device, not on any")
    frames, at = [], 24
    while at + 16 <= len(raw):
        (size,) = struct.unpack_from(order + "I", raw, at + 8)
        packet = raw[at + 16 : at + 16 + size]
        if len(packet) < size:
            break
        frames.append(packet if link == _ETHERNET else _framed(packet))
        at += 16 + size
    return frames


def _framed(packet: bytes) -> bytes:
    kind = _IPV6 if packet[:1] and packet[0] >> 4 == 6 else _IPV4
    return bytes(12) + kind.to_bytes(2) + packet
