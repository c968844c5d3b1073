"""What services and backends carried, as the data path counts it."""

from __future__ import annotations

import time

from bpf.layout import Flow, FlowState, Load, Row, RowSize
from lb.flows import FLOWS
from lb.traffic import Carried, of_backend, of_service, pieces, present
from tests.packet.bench import Bench
from tests.packet.net import Net, offered
from tests.packet.packets import Make, answer, network

CLIENTS = range(20000, 20005)
_STATE = FLOWS + next(field.offset for field in Flow.FIELDS if field.name == "state")


def carried(bench: Bench) -> tuple[Carried, Carried]:
    """By the only service, and by its only backend."""
    tables = bench.tables
    there = present(pieces(bench.table_of_flows), time.monotonic_ns())
    (placed,) = bench.placed()
    (spot,) = placed.backends.values()
    generation = bench.generation(spot.id)
    load = Load.unpack(tables.loads.read(spot.id))
    service = of_service(tables.counters, placed.service, there)
    return service, of_backend(load, spot.id, generation, there)


def end_all(bench: Bench) -> None:
    """All flows are over, their places still hold them."""
    table = bench.table_of_flows
    for index in range(table.capacity):
        row = table.read(index)
        if any(row):
            raw = bytearray(row)
            for way in range(RowSize.WAYS):
                raw[_STATE + way * Flow.SIZE] = FlowState.FREE
            table.write(index, bytes(raw[: Row.SIZE]))


def test_packets_are_counted_once(bench: Bench, net: Net, l4: Make) -> None:
    """Whether a flow is alive, over, or gave its place to another: the sums stay right."""
    bench.give(offered(net, l4, net.here))
    before, _ = carried(bench)
    sent = [l4(net.client, port, net.vip, 80) for port in CLIENTS]
    octets = sum(len(network(packet)) for packet in sent)
    for turn in (1, 2, 3):
        for packet in sent:
            ran = bench.run("lb_in", bytes(packet))
            got = type(packet)(ran.packet)
            bench.run("lb_out", bytes(answer(got)))
        service, backend = carried(bench)
        for one in (service, backend):
            base = before if one is service else Carried()
            assert one.connections - base.connections == turn * len(sent)
            assert one.packets - base.packets == turn * 2 * len(sent)
            assert one.octets - base.octets == turn * 2 * octets
            assert one.open == len(sent)
        end_all(bench)
    assert carried(bench)[0].open == 0


def test_a_service_outlives_its_backends(bench: Bench, net: Net, l4: Make) -> None:
    """What a backend carried stays with the service, and is nobody else's."""
    bench.give(offered(net, l4, net.here))
    bench.run("lb_in", bytes(l4(net.client, 20000, net.vip, 80)))
    before, _ = carried(bench)
    bench.change(offered(net, l4, net.there))
    service, backend = carried(bench)
    assert (service.connections, service.packets) == (before.connections, before.packets)
    assert backend == Carried()
    end_all(bench)
    bench.run("lb_in", bytes(l4(net.client, 20000, net.vip, 80)))
    service, backend = carried(bench)
    assert service.packets == before.packets + 1
    assert (backend.connections, backend.packets) == (1, 1)


def test_refusals_are_the_services(bench: Bench, net: Net, l4: Make) -> None:
    """Each packet that a service drops counts there."""
    bench.give(
        offered(
            net,
            l4,
            net.here,
            ranges=(f"{net.neighbour}/128",) if ":" in net.client else (f"{net.neighbour}/32",),
        )
    )
    before, _ = carried(bench)
    for _ in range(3):
        bench.run("lb_in", bytes(l4(net.client, 20000, net.vip, 80)))
    after, _ = carried(bench)
    assert after.refusals == before.refusals + 3
    assert after.connections == before.connections
