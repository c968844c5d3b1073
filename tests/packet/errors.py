"""ICMP errors about a packet, as a router or its receiver makes them, with right checksums."""

from __future__ import annotations

from scapy.packet import Packet, Raw

from tests.packet.packets import ends, network
from tests.packet.sums import LINK, total

_V6 = 58


def error(
    about: bytes, source: str, destination: str, words: tuple[int, int], *,
    quoted: int = 548, mtu: int = 0, hops: int = 64,
) -> Packet:  # fmt: skip
    """An error from `source` to `destination` that quotes `quoted` octets of the frame `about`."""
    body = bytes([*words, 0, 0]) + mtu.to_bytes(4, "big") + about[LINK : LINK + quoted]
    packet = ends(source, destination, hops)
    layer = network(packet)
    pseudo = b""
    if ":" in source:
        layer.nh = _V6
        pseudo = bytes(layer)[8:40] + len(body).to_bytes(4, "big") + _V6.to_bytes(4, "big")
    else:
        layer.proto = 1
    checksum = 0xFFFF - total(pseudo + body)
    return packet / Raw(body[:2] + checksum.to_bytes(2, "big") + body[4:])
