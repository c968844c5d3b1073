"""IP addresses as the maps hold them: 16 bytes, network order, IPv4 as ::ffff:a.b.c.d.

Parsed once at the edge and never again: a hundred thousand endpoints pass through here at a
cold start, so the fast path is one call into libc. Zero-padded IPv4 text ("172.30.0.041") is
decimal, as Kubernetes has always read it, and not octal.

Not for prefixes of routes or devices: only for what services and endpoints need.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import IntEnum
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NewType

from lb.errors import BadAddress

Address = NewType("Address", bytes)
"""16 bytes, network order; IPv4 is v4-mapped (RFC 4291, 2.5.5.2)."""

MAPPED = bytes(10) + b"\xff\xff"
_ZEROS = re.compile(r"(?<![0-9a-fA-F])0+(?=[0-9])")


class Family(IntEnum):
    """An IP family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def label(self) -> str:
        """`IPv4` or `IPv6`, as Kubernetes writes it."""
        return "IPv4" if self is Family.IPV4 else "IPv6"


ANY = {Family.IPV4: Address(MAPPED + bytes(4)), Family.IPV6: Address(bytes(16))}
"""The unspecified address of each family."""


def parse(text: str) -> Address:
    """The address that `text` names; IPv4-mapped IPv6 text is IPv4. Raises BadAddress."""
    try:
        return Address(MAPPED + inet_pton(AF_INET, text))
    except (OSError, ValueError):
        pass
    try:
        return Address(inet_pton(AF_INET6, text))
    except (OSError, ValueError):
        pass
    stripped = _ZEROS.sub("", text) if "." in text else text
    if stripped != text:
        return parse(stripped)
    raise BadAddress(f"{text!r} is not an IP address")


def family(address: Address) -> Family:
    """The family of an address."""
    return Family.IPV4 if address.startswith(MAPPED) else Family.IPV6


def show(address: Address) -> str:
    """The address in its usual text form."""
    if address.startswith(MAPPED):
        return inet_ntop(AF_INET, address[12:])
    return inet_ntop(AF_INET6, address)


def show_port(address: Address, port: int) -> str:
    """`10.96.0.10:80` or `[fd00::1]:80`."""
    text = show(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


class Prefix(tuple[Address, int]):
    """An address and a prefix length in bits of the 128-bit form (an IPv4 /24 is 120)."""

    __slots__ = ()

    def __contains__(self, address: object) -> bool:
        """Is the address inside the prefix?"""
        if not isinstance(address, bytes):
            return False
        base, bits = self
        shift = 128 - bits
        return int.from_bytes(address) >> shift == int.from_bytes(base) >> shift

    @property
    def length(self) -> int:
        """The length in bits as the family writes it (0 to 32, or 0 to 128)."""
        base, bits = self
        return bits - 96 if family(base) is Family.IPV4 else bits

    def __str__(self) -> str:
        return f"{show(self[0])}/{self.length}"


def parse_prefix(text: str) -> Prefix:
    """`10.0.0.0/8`, with host bits cleared and white space trimmed. Raises BadAddress."""
    base_text, slash, length_text = text.strip().partition("/")
    base = parse(base_text)
    offset = 96 if family(base) is Family.IPV4 else 0
    if not slash or not length_text.isascii() or not length_text.isdigit():
        raise BadAddress(f"{text!r} is not a prefix: write ADDRESS/LENGTH")
    bits = int(length_text) + offset
    if bits > 128:
        raise BadAddress(f"{text!r} is not a prefix: the length is above {128 - offset}")
    shift = 128 - bits
    number = int.from_bytes(base) >> shift << shift
    return Prefix((Address(number.to_bytes(16)), bits))


def one_of_each(addresses: Collection[Address]) -> tuple[Address, ...]:
    """The first address of each family."""
    found: dict[Family, Address] = {}
    for address in addresses:
        found.setdefault(family(address), address)
    return tuple(found.values())
