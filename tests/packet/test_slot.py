"""The slot that `explain` names is the one that the program looks at."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether

from bpf.layout import Backend
from lb.address import Address, parse, show
from lb.model import Protocol
from lb.see.frame import Ends
from lb.see.slot import slot_of
from tests.packet.bench import Bench
from tests.packet.net import BACKEND, Net, offered
from tests.packet.packets import Make, network, tcp


@pytest.mark.parametrize("affinity", [0, 600])
def test_the_slot_leads_to_the_chosen_backend(
    bench: Bench, net: Net, l4: Make, affinity: int
) -> None:
    """Of 50 connections each goes to the backend in its slot, by the client alone if sticky."""
    pods = [f"{net.at(net.remote[0][:-1] + str(number), BACKEND)} n2" for number in range(1, 8)]
    bench.give(offered(net, l4, *pods, affinity=affinity))
    (placed,) = bench.placed()
    protocol = Protocol.TCP if l4 is tcp else Protocol.UDP
    for port in range(20000, 20050):
        ran = bench.run("lb_in", bytes(l4(net.client, port, net.vip, 80)))
        chosen = network(Ether(ran.packet)).dst
        ends = Ends(protocol, parse(net.client), port, parse(net.vip), 80)
        slot, slots = slot_of(ends, placed.ring, client_only=bool(affinity))
        assert slots == placed.ring & 0xFFFFFFFF
        index = (placed.ring >> 32) + slot
        pair = int.from_bytes(bench.tables.rings.read(index // 2), "little")
        number = pair >> 32 if index % 2 else pair & 0xFFFFFFFF
        record = Backend.unpack(bench.tables.backends.read(number))
        assert show(Address(record.address)) == chosen
