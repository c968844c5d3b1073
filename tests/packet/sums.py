"""Every checksum of a frame, summed up from scratch; no help of scapy, nor of the code under test.

Of a quoted packet only the IPv4 header's counts: the rest of it may be cut short.
"""

from __future__ import annotations

import struct

LINK = 14
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_EXTENSIONS = (0, 60)
_ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}


def total(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071); 0xffff where all is right."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    value = sum(words)
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def wrong(frame: bytes) -> list[str]:
    """The names of the checksums that are not right. Fragments have none but IPv4's."""
    ip = frame[LINK:]
    if frame[12:14] == b"\x08\x00":
        start, end = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
        bad = [] if total(ip[:start]) == 0xFFFF else ["IPv4"]
        if int.from_bytes(ip[6:8], "big") & 0x3FFF:
            return bad
        return bad + _upper(4, ip[12:20], ip[9], ip[start:end])
    end = 40 + int.from_bytes(ip[4:6], "big")
    start, protocol = 40, ip[6]
    while protocol in _EXTENSIONS:
        protocol, start = ip[start], start + 8 + ip[start + 1] * 8
    return _upper(6, ip[8:40], protocol, ip[start:end])


def _upper(version: int, addresses: bytes, protocol: int, data: bytes) -> list[str]:
    pseudo = addresses + struct.pack("!II", len(data), protocol)
    if protocol == _TCP and total(pseudo + data) != 0xFFFF:
        return ["TCP"]
    if protocol == _UDP and data[6:8] != b"\0\0" and total(pseudo + data) != 0xFFFF:
        return ["UDP"]
    bad = []
    if protocol == _ICMP and total(data) != 0xFFFF:
        bad = ["ICMP"]
    if protocol == _ICMP6 and total(pseudo + data) != 0xFFFF:
        bad = ["ICMPv6"]
    if protocol in {_ICMP, _ICMP6} and data[0] in _ERRORS[version] and version == 4:
        quoted = data[8:]
        if total(quoted[: (quoted[0] & 15) * 4]) != 0xFFFF:
            bad.append("the quoted IPv4")
    return bad
