"""Frames as `explain` makes and reads them, held against scapy."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import HBHOptUnknown, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import PcapWriter

from lb.address import MAPPED, Address, parse
from lb.errors import BadInput
from lb.model import Dispatch, Protocol
from lb.see.frame import Ends, build, captured, read, readdressed, wrapped

LINK = Ether(dst="02:00:00:00:00:01")
"""With an address: scapy would ask the network for one."""

MAC = bytes.fromhex("020000000001")
V4 = st.binary(min_size=4, max_size=4).map(lambda raw: Address(MAPPED + raw))
V6 = st.binary(min_size=16, max_size=16).filter(lambda raw: not raw.startswith(MAPPED))
PORTS = st.integers(1, 65535)
PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.UDP])
ENDS = st.one_of(
    st.builds(Ends, PROTOCOLS, V4, PORTS, V4, PORTS),
    st.builds(Ends, PROTOCOLS, V6.map(Address), PORTS, V6.map(Address), PORTS),
)


@given(ENDS)
def test_what_is_built_is_read_again(ends: Ends) -> None:
    """Every pair of ends comes back."""
    assert read(build(ends, MAC)) == ends


@given(ENDS)
def test_checksums_are_right(ends: Ends) -> None:
    """Scapy, asked to compute them anew, finds the same frame."""
    frame = build(ends, MAC)
    packet = Ether(frame)
    for layer, fields in ((IP, ["chksum"]), (TCP, ["chksum"]), (UDP, ["chksum"])):
        if layer in packet:
            for field in fields:
                delattr(packet[layer], field)
    assert bytes(packet) == frame
    assert packet.dst == "02:00:00:00:00:01"


UNREAD: list[tuple[str, Packet | bytes]] = [
    ("nothing", b""),
    ("ARP", bytes(12) + b"\x08\x06" + bytes(46)),
    ("ICMP", LINK / IP() / ICMP()),
    ("a later fragment", LINK / IP(frag=5) / UDP()),
    ("cut short", bytes(LINK / IP() / TCP())[:35]),
    ("IPv6 cut short", bytes(LINK / IPv6() / TCP())[:50]),
]


@pytest.mark.parametrize(("name", "frame"), UNREAD, ids=[name for name, _ in UNREAD])
def test_what_has_no_ends(name: str, frame: Any) -> None:
    """Neither TCP nor UDP, or not enough of it."""
    assert name
    assert read(bytes(frame)) is None


@given(st.binary(max_size=80))
def test_no_frame_is_too_strange(raw: bytes) -> None:
    """Any bytes have ends or none."""
    read(raw)


@pytest.mark.parametrize("link", [1, 101])
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_capture(*, link: int, nano: bool, order: str) -> None:
    """Frames of a pcap file in every form, with a link header or without."""
    packets = [LINK / IP(src="10.0.0.1") / TCP(sport=number) for number in (1, 2)]
    target = io.BytesIO()
    writer = PcapWriter(target, linktype=link, nano=nano, endianness=order)
    for packet in packets:
        writer.write(packet if link == 1 else packet[IP])
    writer.flush()
    frames = captured(target.getvalue(), "x.pcap")
    ends = [read(frame) for frame in frames]
    assert [one.source_port for one in ends if one is not None] == [1, 2]
    cut = captured(target.getvalue()[:-3], "x.pcap")
    assert len(cut) == 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no pcap file"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "tcpdump -r x.pcap"),
        (b"\xd4\xc3\xb2\xa1", "cut short"),
        (b"\xd4\xc3\xb2\xa1" + bytes(16) + b"\x71\0\0\0", "link type 113"),
    ],
)
def test_no_capture(raw: bytes, said: str) -> None:
    """One line that says what is wrong with the file."""
    with pytest.raises(BadInput, match=said):
        captured(raw, "x.pcap")


def test_what_is_wrapped() -> None:
    """The outer header names the backend, and its port where tunnel.h puts it."""
    inner = IP(src="198.51.100.1", dst="203.0.113.1") / TCP()
    frame = bytes(LINK / IP(src="192.0.2.1", dst="10.0.0.5", id=8080) / inner)
    assert wrapped(frame) == (parse("192.0.2.1"), parse("10.0.0.5"), 8080, Dispatch.IPIP)
    inner6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP()
    frame = bytes(LINK / IPv6(src="fd00::1", dst="fd00::5", fl=8080) / inner6)
    assert wrapped(frame) == (parse("fd00::1"), parse("fd00::5"), 8080, Dispatch.IPIP)
    assert wrapped(bytes(LINK / inner)) is None
    assert wrapped(b"") is None


def test_what_is_marked() -> None:
    """The packet goes to the backend itself; what the client asked stands in the mark."""
    option = IPOption(copy_flag=1, optclass=0, option=30, value=bytes(10))
    head = IP(src="192.0.2.1", dst="10.0.0.5", options=[option])
    frame = bytes(LINK / head / TCP(dport=8080))
    assert wrapped(frame) == (parse("192.0.2.1"), parse("10.0.0.5"), 8080, Dispatch.OPT)
    head6 = IPv6(src="fd00::1", dst="fd00::5") / IPv6ExtHdrDestOpt(
        options=[HBHOptUnknown(otype=0x5E, optdata=bytes(36))], autopad=0
    )
    frame6 = bytes(LINK / head6 / UDP(dport=8080))
    assert wrapped(frame6) == (parse("fd00::1"), parse("fd00::5"), 8080, Dispatch.OPT)
    for octets in range(14, len(frame)):
        assert wrapped(frame[:octets]) is None or octets >= 50
    for octets in range(14, len(frame6)):
        assert wrapped(frame6[:octets]) is None or octets >= 98


def test_a_frame_gets_another_address() -> None:
    """Only the destination changes."""
    frame = build(
        Ends(Protocol.TCP, Address(MAPPED + b"aaaa"), 1, Address(MAPPED + b"bbbb"), 2), MAC
    )
    assert readdressed(frame, bytes(6)) == bytes(6) + frame[6:]
