"""Packets in few words, what an answer to one looks like, and how two of them differ."""

from __future__ import annotations

from collections.abc import Callable

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import NoPayload, Packet

from tests.packet.bench import NODE_MAC, ROUTER_MAC

Make = Callable[..., Packet]
"""`tcp` or `udp`."""
PORTS = range(49152, 65536)
SOME_PORT = 0
"""In a packet that is wanted: any port of PORTS, which the node chose."""
TEXT = b"seven more words, of an odd length."


def ends(source: str, destination: str, hops: int = 64) -> Packet:
    """Ethernet and IP of either family, from the router to this node."""
    link = Ether(src=ROUTER_MAC, dst=NODE_MAC)
    if ":" in source:
        return link / IPv6(src=source, dst=destination, hlim=hops)
    return link / IP(src=source, dst=destination, ttl=hops, id=4711)


def tcp(
    source: str, sport: int, destination: str, dport: int, *, flags: str = "S", hops: int = 64
) -> Packet:
    """A TCP segment with some text."""
    return ends(source, destination, hops) / TCP(sport=sport, dport=dport, flags=flags) / TEXT


def udp(
    source: str, sport: int, destination: str, dport: int, *, hops: int = 64, flags: str = ""
) -> Packet:
    """A UDP datagram with some text; it has no flags, so `flags` do not count."""
    del flags
    return ends(source, destination, hops) / UDP(sport=sport, dport=dport) / TEXT


def network(packet: Packet) -> Packet:
    """The IP layer of either family."""
    return packet[IPv6] if IPv6 in packet else packet[IP]


def transport(packet: Packet) -> Packet:
    """The TCP or UDP layer."""
    return packet[TCP] if TCP in packet else packet[UDP]


def answer(packet: Packet, *, flags: str = "SA", hops: int = 64) -> Packet:
    """What the receiver of `packet` sends back."""
    there, ports = network(packet), transport(packet)
    make = tcp if TCP in packet else udp
    return make(there.dst, ports.dport, there.src, ports.sport, hops=hops, flags=flags)


def recomputed(frame: bytes) -> bytes:
    """The frame with every checksum made anew; a UDP checksum of 0 says none, and stays."""
    packet = Ether(frame)
    layer: Packet = packet
    while not isinstance(layer, NoPayload):
        if isinstance(layer, IP | TCP | ICMP) or (isinstance(layer, UDP) and layer.chksum):
            del layer.chksum
        layer = layer.payload
    return bytes(packet)


def has_right_checksums(frame: bytes) -> bool:
    """Is every checksum what scapy makes it, from scratch?"""
    return recomputed(frame) == frame


def _layers(packet: Packet) -> list[Packet]:
    found = []
    while not isinstance(packet, NoPayload):
        found.append(packet)
        packet = packet.payload
    return found


def difference(wanted: Packet, got: bytes) -> str:
    """Field by field, a line each; empty: the same bytes."""
    if bytes(wanted) == got:
        return ""
    lines = []
    left, right = _layers(Ether(bytes(wanted))), _layers(Ether(got))
    for one, other in zip(left, right, strict=False):
        if one.name != other.name:
            break
        for field in one.fields_desc:
            values = one.getfieldval(field.name), other.getfieldval(field.name)
            if values[0] != values[1]:
                shown = [field.i2repr(one, value) for value in values]
                lines.append(f"{one.name}.{field.name}: wanted {shown[0]}, got {shown[1]}")
    names = [" / ".join(one.name for one in side) for side in (left, right)]
    if names[0] != names[1]:
        lines.append(f"layers: wanted {names[0]}, got {names[1]}")
    return "\n".join(lines) or f"wanted {bytes(wanted).hex()}, got {got.hex()}"


def with_port(wanted: Packet, got: bytes) -> Packet:
    """`wanted` with the port that the node chose in the place of SOME_PORT."""
    if not (TCP in wanted or UDP in wanted) or transport(wanted).sport != SOME_PORT:
        return wanted
    chosen = Ether(got)
    if not (TCP in chosen or UDP in chosen) or transport(chosen).sport not in PORTS:
        return wanted
    made = wanted.copy()
    transport(made).sport = transport(chosen).sport
    return made
