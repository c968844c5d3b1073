"""The pacing programs themselves on made-up packets: whose they are, and what is counted."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from bandwidth.pacing import terms
from bpf import libbpf
from bpf.layout import Limit, PodLimits
from bpf.maps import KernelArray
from bpf.pins import Pins
from bpf.texts import EDT, EDT_POD
from lb.address import parse
from lb.config import table_sizes
from lb.limits.bbr import CONSTANTS

POD4, POD6, OTHER = "10.244.1.5", "fd00::5", "10.244.1.6"
NUMBER = 3
LENGTH = 1000
DROPPED, PASSED = 2, 0xFFFFFFFF  # TC_ACT_SHOT, TC_ACT_UNSPEC
ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
"""Given, or scapy asks the network."""


ASKING = ETHER / ARP(hwsrc=ETHER.src, psrc=OTHER) / Raw(bytes(20))


class Receiving:
    """`edt_pod` for a pod with an ingress limit."""

    def __init__(self, folder: Path) -> None:
        pins = Pins(folder)
        pins.make(table_sizes({}))
        building = pins.compile([EDT["node"]], CONSTANTS)
        building.finish()
        self._program = libbpf.open_pin(str(building.folders[EDT["node"]] / EDT_POD.name))
        self._limits: KernelArray = pins.open_array("limits")
        entry = PodLimits(0, NUMBER).pack()
        pins.open_hash("pods").put({parse(one): entry for one in (POD4, POD6)})

    def limited(self, bits: int) -> None:
        """To so many bits per second from now on; 0: the entry is there, and no limit."""
        told = terms(bits) if bits else (0, 0, 0)
        self._limits.write(NUMBER, struct.pack("=3Q", *told).ljust(Limit.SIZE, b"\0"))

    def send(self, packet: Packet) -> int:
        """The verdict."""
        return libbpf.test_run(self._program, bytes(packet)).verdict

    def entry(self) -> Limit:
        """As it is now."""
        return Limit.unpack(self._limits.read(NUMBER))

    def close(self) -> None:
        """The program goes."""
        os.close(self._program)


@pytest.fixture(scope="module")
def receiving(folder: Path) -> Iterator[Receiving]:
    """In a folder of its own."""
    made = Receiving(folder)
    yield made
    made.close()


def to(address: str) -> Packet:
    """A datagram of LENGTH bytes, with its Ethernet header."""
    network = (
        IP(src=OTHER, dst=address)
        if ip_address(address).version == 4
        else IPv6(src="fd00::6", dst=address)
    )
    head = ETHER / network / UDP(sport=1000, dport=2000)
    return head / Raw(bytes(LENGTH - len(head)))


@pytest.mark.parametrize("address", [POD4, POD6])
def test_what_the_pod_receives_is_counted(receiving: Receiving, address: str) -> None:
    """In frames, as the wire has them, in both families."""
    receiving.limited(10**9)
    assert [receiving.send(to(address)) for _ in range(3)] == [PASSED] * 3
    entry = receiving.entry()
    assert (entry.packets, entry.octets, entry.dropped) == (3, 3 * LENGTH, 0)


@pytest.mark.parametrize(
    "packet",
    [to(OTHER), ETHER / ARP(hwsrc=ETHER.src, psrc=OTHER) / Raw(bytes(20))],
    ids=["ip", "arp"],
)
def test_what_is_not_the_pods_passes_uncounted(receiving: Receiving, packet: Packet) -> None:
    """Another pod on the same device, and what is no IP."""
    receiving.limited(1000)
    assert [receiving.send(packet) for _ in range(3)] == [PASSED] * 3
    assert receiving.entry().packets == 0


def test_beyond_its_queue_it_is_dropped(receiving: Receiving) -> None:
    """At the least rate one packet leaves, and nobody waits longer than the horizon."""
    receiving.limited(1000)
    assert [receiving.send(to(POD4)) for _ in range(3)] == [PASSED, DROPPED, DROPPED]
    entry = receiving.entry()
    assert (entry.packets, entry.dropped, entry.dropped_octets) == (1, 2, 2 * LENGTH)


def test_what_has_to_wait_is_counted(receiving: Receiving) -> None:
    """Packets, their bytes, and for how long; the first one finds nobody in front of it."""
    receiving.limited(10_000)
    assert [receiving.send(to(POD6)) for _ in range(3)] == [PASSED] * 3
    entry = receiving.entry()
    assert (entry.packets, entry.delayed, entry.delayed_octets) == (3, 2, 2 * LENGTH)
    assert entry.waited > 0


def test_the_largest_rate_holds_nobody_up(receiving: Receiving) -> None:
    """A petabit a second: not one packet is told to wait."""
    receiving.limited(10**15)
    assert [receiving.send(to(POD6)) for _ in range(50)] == [PASSED] * 50
    entry = receiving.entry()
    assert (entry.delayed, entry.delayed_octets) == (0, 0)


def test_without_a_rate_there_is_no_limit(receiving: Receiving) -> None:
    """An entry that its pod has just left: nothing is divided by nothing."""
    receiving.limited(0)
    assert [receiving.send(to(POD4)) for _ in range(3)] == [PASSED] * 3
    assert receiving.entry().packets == 0
