"""Full memories of flows: the oldest goes first and whole, and who went comes back where it was."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest
from scapy.layers.l2 import Ether

from bpf.layout import DsrFlow, Flow, FlowState, Forwarding, Row
from bpf.netns import entered
from lb.address import Address, parse
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import BACKEND, Net, offered
from tests.packet.packets import PORTS, Make, answer, network, tcp

ROWS = 16384
_MASK = (1 << 64) - 1


def mix(value: int, more: int) -> int:
    """As `mix` of flow.h."""
    value = (value ^ more) * 0x9E3779B97F4A7C15 & _MASK
    return value ^ value >> 32


def mixed(value: int, address: Address) -> int:
    """As `mix_address`; words are those of this machine."""
    words = [int.from_bytes(address[at : at + 4], "little") for at in range(0, 16, 4)]
    return mix(mix(value, words[0] << 32 | words[1]), words[2] << 32 | words[3])


def wire(port: int) -> int:
    """A port as the programs see it."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


class Client(NamedTuple):
    """One end, and what the programs make of it."""

    address: str
    port: int
    protocol: int

    @property
    def row(self) -> int:
        """The first row of `flows` that it is looked for in."""
        address = Address(parse(self.address))
        return mixed(mix(self.protocol, wire(self.port)), address) >> 16 & ROWS - 1

    def dsr_row(self, vip: str, rows: int) -> int:
        """Its row of `dsr_flows`."""
        value = mix(self.protocol, wire(self.port) << 16 | wire(80))
        value = mixed(mixed(value, Address(parse(self.address))), Address(parse(vip)))
        return (value & 0xFFFFFFFF) * rows >> 32


def clients(net: Net, l4: Make) -> Iterator[Client]:
    """One after the other."""
    protocol = 6 if l4 is tcp else 17
    return (Client(net.neighbour, port, protocol) for port in range(1024, 65536))


def pods(net: Net, node: str) -> list[str]:
    """Seven backends."""
    start = (net.local if node == "n1" else net.remote)[0][:-1]
    return [f"{net.at(f'{start}{number}', BACKEND)} {node}" for number in range(1, 8)]


STRANGER = Flow(
    client=b"s" * 16, frontend=b"f" * 16, backend=b"b" * 16, client_port=1, frontend_port=2,
    backend_port=3, port=0, service=0, id=0, generation=0, protocol=6,
    state=FlowState.ESTABLISHED, mode=Forwarding.LOCAL, facts=0, used=0, packets=0, octets=0,
)  # fmt: skip


def crowd(bench: Bench, at: int) -> None:
    """Live strangers everywhere but in the place of the one flow there is, silent for a second."""
    now = time.monotonic_ns()
    table = bench.table_of_flows
    stranger = msgspec.structs.replace(STRANGER, used=now).pack()
    full = Row(0, 1, 0, (1,) * 8, (1,) * 8, stranger * 8).pack()
    row = Row.unpack(table.read(at, 1)[: Row.SIZE])
    flows = [Flow.unpack(row.flow[i : i + Flow.SIZE]) for i in range(0, len(row.flow), Flow.SIZE)]
    (way,) = [number for number, flow in enumerate(flows) if flow.state != FlowState.FREE]
    old = flows[way].pack()[: Flow.SIZE - 24] + (now - 10**9).to_bytes(8, "little") + bytes(16)
    ways = [old if number == way else stranger for number in range(8)]
    table.write(0, full * ROWS)
    table.write(at, Row(0, 1, 0, row.forth, row.back, b"".join(ways)).pack())


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_the_oldest_goes_whole_and_comes_back(bench: Bench, net: Net, l4: Make, node: str) -> None:
    """Neither side finds it any more; its next packet goes to the same backend, by the same port.

    All 131,072 places are taken by live flows.
    """
    bench.give(offered(net, l4, *pods(net, node)))
    program = "lb_out" if node == "n1" else "lb_in"
    first = l4(net.client, 40000, net.vip, 80)
    sent = Ether(bench.run("lb_in", bytes(first)).packet)
    assert bench.run(program, bytes(answer(sent))).packet != bytes(answer(sent))
    at = Client(net.client, 40000, 6 if l4 is tcp else 17).row
    crowd(bench, at)
    other = next(one for one in clients(net, l4) if one.row == at)
    pushed = bench.run("lb_in", bytes(l4(other.address, other.port, net.vip, 80)))
    assert pushed.verdict == (Verdict.PASS if node == "n1" else Verdict.SEND)
    assert parse(net.client) not in {flow.client for flow in bench.flows()}
    play(bench, Case("answer to it", None, answer(sent), program=program))
    again = Ether(bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80, flags="A"))).packet)
    assert network(again).dst == network(sent).dst
    assert network(again).payload.sport == network(sent).payload.sport
    restored = Ether(bench.run(program, bytes(answer(again))).packet)
    assert (network(restored).src, network(restored).dst) == (net.vip, net.client)


@pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])
def test_the_oldest_that_is_wrapped_comes_back(
    bench: Bench, net: Net, l4: Make, program: str
) -> None:
    """A row of four: the fifth takes the oldest's place, whose next packet goes where all went."""
    bench.give(offered(net, l4, *pods(net, "n2"), forwarding=Way.DSR))
    table = bench.table_of_direct_flows
    protocol = 6 if l4 is tcp else 17
    first = bytes(l4(net.client, 40000, net.vip, 80))
    chosen = network(Ether(bench.run(program, first).packet)).dst
    at = Client(net.client, 40000, protocol).dsr_row(net.vip, table.capacity)
    raw = table.read(at)
    (here,) = [i for i in range(0, len(raw), DsrFlow.SIZE) if any(raw[i : i + DsrFlow.SIZE])]
    mine = msgspec.structs.replace(DsrFlow.unpack(raw[here : here + DsrFlow.SIZE]), used=1)
    stranger = msgspec.structs.replace(mine, client=b"s" * 16, used=mine.used + 1)
    ways = [mine if i == here else stranger for i in range(0, len(raw), DsrFlow.SIZE)]
    table.write(at, b"".join(way.pack() for way in ways))
    rows = ((one, one.dsr_row(net.vip, table.capacity)) for one in others(net, l4))
    other = next(one for one, row in rows if row == at)
    bench.run(program, bytes(l4(other.address, other.port, net.vip, 80)))
    left = {row["client"] for row in bench.direct_flows()}
    assert net.at(net.client, 40000) not in left
    assert net.at(other.address, other.port) in left
    # In the midst of a connection that XDP does not know it asks tc, which knows all.
    again = bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80, flags="A")))
    assert network(Ether(again.packet)).dst == chosen
    assert net.at(net.client, 40000) in {row["client"] for row in bench.direct_flows()}


def others(net: Net, l4: Make) -> Iterator[Client]:
    """More clients than the memory has rows, several times over."""
    protocol = 6 if l4 is tcp else 17
    start = net.client[:-1]
    return (
        Client(f"{start}{host}", port, protocol)
        for host in range(2, 100)
        if f"{start}{host}" != net.client
        for port in range(1024, 65536)
    )


SILENT = [
    # state, protocol, seconds without a packet; does it go before those who were silent for longer?
    (FlowState.CLOSING, 6, 11, True),
    (FlowState.CLOSING, 6, 9, True),
    (FlowState.NEW, 6, 61, True),
    (FlowState.NEW, 6, 1, True),
    (FlowState.NEW, 17, 59, True),
    (FlowState.ESTABLISHED, 17, 181, True),
    (FlowState.ESTABLISHED, 17, 179, False),
    (FlowState.ESTABLISHED, 6, 3000, False),
]


def ago(seconds: int) -> int:
    """As `used` of a flow; in their order also on a machine that has not run for so long."""
    return max(time.monotonic_ns() - seconds * 10**9, 3601 - seconds)


@pytest.mark.parametrize(("state", "protocol", "seconds", "goes"), SILENT)
def test_who_is_over_goes_first(  # noqa: PLR0917 - fixtures and columns
    bench: Bench, net: Net, l4: Make, state: FlowState, protocol: int, seconds: int, *, goes: bool
) -> None:
    """What is over; else what closes, or what the client did not take up; else the oldest."""
    bench.give(offered(net, l4, *pods(net, "n1")))
    table = bench.table_of_flows
    old = msgspec.structs.replace(STRANGER, client=b"o" * 16, used=ago(3600))
    some = msgspec.structs.replace(STRANGER, used=ago(3599))
    silent = msgspec.structs.replace(
        STRANGER, client=b"x" * 16, state=state, protocol=protocol, used=ago(seconds)
    )
    flows = b"".join(one.pack() for one in (some, some, silent, some, old, some, some, some))
    table.write(0, Row(0, 1, 0, (1,) * 8, (1,) * 8, flows).pack() * ROWS)
    bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80)))
    at = Client(net.client, 40000, 6 if l4 is tcp else 17).row
    row = Row.unpack(table.read(at))
    clients = {row.flow[i : i + 16] for i in range(0, len(row.flow), Flow.SIZE)}
    assert bytes(parse(net.client)) in clients
    assert (silent.client not in clients, old.client not in clients) == (goes, not goes)


def test_a_port_of_the_nodes_own_sockets_is_no_port(bench: Bench, net: Net, l4: Make) -> None:
    """Who listens there goes on to hear what is sent there; the flow gets the next port."""
    bench.give(offered(net, l4, net.there))
    sent = bytes(l4(net.client, 40000, net.vip, 80))
    first = network(Ether(bench.run("lb_in", sent).packet)).payload.sport
    bench.forget()
    family = socket.AF_INET6 if ":" in net.node else socket.AF_INET
    kind = socket.SOCK_STREAM if l4 is tcp else socket.SOCK_DGRAM
    with entered(bench.namespace), socket.socket(family, kind) as own:
        own.bind((net.node, first))
        if l4 is tcp:
            own.listen()
        second = network(Ether(bench.run("lb_in", sent).packet)).payload.sport
    assert first != second
    assert first in PORTS
    assert second in PORTS
