"""Packets of a service: to a backend of this node or of another one, and the answers back."""

from __future__ import annotations

import time

import msgspec
import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.layout import Flow, FlowFact, FlowState, FlowTimeout, Forwarding, Row
from lb.address import parse
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, judged, play
from tests.packet.net import BACKEND, Net, offered
from tests.packet.packets import (
    PORTS,
    SOME_PORT,
    Make,
    answer,
    difference,
    network,
    tcp,
    transport,
    with_port,
)

KINDS = ("load balancer", "external", "cluster", "node port")


@pytest.mark.parametrize("kind", KINDS)
def test_to_a_backend_of_this_node(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """The destination is rewritten and nothing else; the stack takes it from there."""
    vip = net.address_of(kind)
    sent = l4(net.client, 40000, vip, 80)
    wanted = l4(net.client, 40000, net.local[0], BACKEND)
    given = (offered(net, l4, net.here, kind=kind),)
    got = play(bench, Case(kind, given, sent, Verdict.PASS, wanted))
    back = answer(got)
    restored = l4(vip, 80, net.client, 40000, flags="SA")
    play(bench, Case("answer", None, back, Verdict.PASS, restored, program="lb_out"))


@pytest.mark.parametrize("kind", KINDS)
def test_to_a_backend_of_another_node(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """Both ends are rewritten, one hop is taken, and the answer comes back the same way."""
    vip = net.address_of(kind)
    given = (offered(net, l4, net.there, kind=kind),)
    forth = Case(
        "forth", given, l4(net.client, 40000, vip, 80, hops=64), Verdict.SEND,
        l4(net.node, SOME_PORT, net.remote[0], BACKEND, hops=63),
    )  # fmt: skip
    got = play(bench, forth)
    back = Case(
        "back", None, answer(got, hops=50), Verdict.SEND,
        l4(vip, 80, net.client, 40000, flags="SA", hops=49),
    )  # fmt: skip
    play(bench, back)
    again = play(bench, forth._replace(given=None))
    assert transport(again).sport == transport(got).sport


@pytest.mark.parametrize("kind", KINDS)
def test_by_xdp_once_the_flow_is_known(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """As by tc, both ways; node ports, too."""
    vip = net.address_of(kind)
    sent = l4(net.client, 40000, vip, 80)
    wanted = l4(net.node, SOME_PORT, net.remote[0], BACKEND, hops=63)
    given = (offered(net, l4, net.there, kind=kind),)
    play(bench, Case("up", given, sent, program="lb_xdp"))
    play(bench, Case("begun", None, sent, Verdict.SEND, wanted))
    got = bench.run("lb_xdp", bytes(sent))
    assert judged("lb_xdp", got.verdict) == Verdict.SEND
    there = Ether(got.packet)
    assert not difference(network(with_port(wanted, got.packet)), bytes(network(there)))
    back = bench.run("lb_xdp", bytes(answer(there)))
    assert judged("lb_xdp", back.verdict) == Verdict.SEND
    restored = l4(vip, 80, net.client, 40000, flags="SA", hops=63)
    assert not difference(network(restored), bytes(network(Ether(back.packet))))


def test_two_clients_with_one_port_get_two(bench: Bench, net: Net, l4: Make) -> None:
    """The backend can tell them apart, and the answers go to the right one."""
    bench.give(offered(net, l4, net.there))
    chosen: dict[int, str] = {}
    for client in (net.client, net.neighbour):
        wanted = l4(net.node, SOME_PORT, net.remote[0], BACKEND, hops=63)
        sent = l4(client, 40000, net.vip, 80)
        got = play(bench, Case(client, None, sent, Verdict.SEND, wanted))
        chosen[transport(got).sport] = client
    assert sorted(chosen.values()) == sorted((net.client, net.neighbour))
    for port, client in chosen.items():
        back = l4(net.remote[0], BACKEND, net.node, port, flags="SA")
        wanted = l4(net.vip, 80, client, 40000, flags="SA", hops=63)
        play(bench, Case(client, None, back, Verdict.SEND, wanted))


def test_many_connections_share_no_port(bench: Bench, net: Net, l4: Make) -> None:
    """Of 500 connections to one backend no two have the same port of this node."""
    bench.give(offered(net, l4, net.there))
    ports = set()
    for number in range(500):
        ran = bench.run("lb_in", bytes(l4(net.client, 10000 + number, net.vip, 80)))
        assert ran.verdict == Verdict.SEND
        ports.add(transport(Ether(ran.packet)).sport)
    assert len(ports) == 500
    assert ports <= set(PORTS)


@pytest.mark.parametrize("program", ["lb_in", "lb_out", "pod_in"])
def test_an_unknown_answer_passes_unchanged(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """Packets of a backend that belong to no flow are the host's own business."""
    given = (offered(net, l4, net.there, net.here),)
    for port in (1024, 40000, PORTS[0], PORTS[-1]):
        for source in (net.remote[0], net.local[0]):
            sent = l4(source, BACKEND, net.node, port, flags="A")
            play(bench, Case(f"{source} to {port}", given, sent, program=program))


def test_a_flow_keeps_the_address_of_its_tunnel(bench: Bench, net: Net, l4: Make) -> None:
    """Where the way leads through the pods' tunnel; also when another way is taken later on."""
    tunnel = {4: "10.244.1.0", 6: "fd00:10:244:1::"}
    bench.reach(*map(parse, tunnel.values()))
    try:
        wanted = tunnel[6 if ":" in net.vip else 4]
        given = (offered(net, l4, net.there),)
        forth = Case(
            "forth", given, l4(net.client, 40000, net.vip, 80, hops=64), Verdict.SEND,
            l4(wanted, SOME_PORT, net.remote[0], BACKEND, hops=63),
        )  # fmt: skip
        back = answer(play(bench, forth))
        bench.reach()
        restored = l4(net.vip, 80, net.client, 40000, flags="SA", hops=63)
        play(bench, Case("back", None, back, Verdict.SEND, restored))
        bench.reach(*map(parse, tunnel.values()))
        play(bench, forth._replace(given=None))
    finally:
        bench.reach()


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_a_flow_counts_its_packets(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """One flow, found from both sides, with all packets of both in it."""
    bench.give(offered(net, l4, net.here if local else net.there))
    sent = l4(net.client, 40000, net.vip, 80)
    got = bench.run("lb_in", bytes(sent)).packet
    (flow,) = bench.flows()
    assert flow.state == FlowState.NEW
    assert flow.mode == (Forwarding.LOCAL if local else Forwarding.SNAT)
    assert flow.client == parse(net.client)
    assert flow.frontend == parse(net.vip)
    assert flow.backend == parse((net.local if local else net.remote)[0])
    assert (flow.client_port, flow.frontend_port, flow.backend_port) == (40000, 80, BACKEND)
    assert flow.port == (0 if local else transport(Ether(got)).sport)
    back = bytes(answer(Ether(got)))
    bench.run("lb_out" if local else "lb_in", back)
    bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80, flags="A")))
    (flow,) = bench.flows()
    assert flow.state == FlowState.ESTABLISHED
    assert flow.packets == 3
    assert flow.octets == 3 * (len(bytes(sent)) - 14)


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_a_connection_stands_once_the_client_takes_it_up(
    bench: Bench, net: Net, *, local: bool
) -> None:
    """Not by SYN-ACKs, which anybody gets in another's name; a datagram's answer is enough."""
    bench.give(offered(net, tcp, net.here if local else net.there))
    got = Ether(bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80))).packet)
    for flags in ("SA", "SA", "S", "A"):
        if flags == "SA":
            bench.run("lb_out" if local else "lb_in", bytes(answer(got, flags=flags)))
        else:
            bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80, flags=flags)))
        (flow,) = bench.flows()
        assert flow.state == (FlowState.ESTABLISHED if flags == "A" else FlowState.NEW)


def test_a_connection_outlives_its_silence(bench: Bench, net: Net) -> None:
    """The server's keepalive still comes from the service.

    A connection that came straight to the backend from the same port meanwhile begins anew, and
    its packets stay as they are.
    """
    bench.give(offered(net, tcp, net.here))
    got = Ether(bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80))).packet)
    bench.run("lb_out", bytes(answer(got)))
    bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80, flags="A")))
    silence(bench, FlowTimeout.TCP + 1)
    keepalive = answer(got, flags="A")
    restored = tcp(net.vip, 80, net.client, 40000, flags="A")
    play(bench, Case("keepalive", None, keepalive, Verdict.PASS, restored, program="lb_out"))
    silence(bench, FlowTimeout.TCP + 1)
    for flags in ("SA", "A"):
        play(bench, Case(flags, None, answer(got, flags=flags), program="lb_out"))
    assert bench.flows() == []


def silence(bench: Bench, seconds: int) -> None:
    """The one flow there is has been silent for so long."""
    table = bench.table_of_flows
    for at in range(table.capacity):
        row = Row.unpack(table.read(at)[: Row.SIZE])
        parts = range(0, len(row.flow), Flow.SIZE)
        ways = [Flow.unpack(row.flow[i : i + Flow.SIZE]) for i in parts]
        if any(way.state for way in ways):
            # Before the machine was started, if need be: the programs count modulo 2^64.
            used = (time.monotonic_ns() - seconds * 10**9) % 2**64
            old = [msgspec.structs.replace(way, used=used) for way in ways]
            raw = b"".join(way.pack() for way in old)
            table.write(at, msgspec.structs.replace(row, flow=raw).pack())
            return
    raise AssertionError("no flow")


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
@pytest.mark.parametrize("last", ["FA", "R"])
def test_a_flow_ends(bench: Bench, net: Net, last: str, *, local: bool) -> None:
    """FIN of both sides, or RST of one: the flow is closing, and still carries packets."""
    given = (offered(net, tcp, net.here if local else net.there),)
    bench.give(*given)
    back_program = "lb_out" if local else "lb_in"

    def forth(flags: str) -> Packet:
        sent = tcp(net.client, 40000, net.vip, 80, flags=flags)
        return Ether(bench.run("lb_in", bytes(sent)).packet)

    def back(flags: str) -> None:
        bench.run(back_program, bytes(answer(got, flags=flags)))

    got = forth("S")
    back("SA")
    forth("A")
    assert bench.flows()[0].facts == FlowFact.ANSWER
    forth(last)
    if last == "FA":
        assert bench.flows()[0].facts == FlowFact.ANSWER | FlowFact.CLIENT_FIN
        back("FA")
        assert bench.flows()[0].facts == FlowFact.ANSWER | FlowFact.FINS
    forth("A")
    (flow,) = bench.flows()
    assert flow.state == FlowState.CLOSING
    assert flow.packets == (6 if last == "FA" else 5)


@pytest.mark.parametrize("local", [True, False], ids=["local", "SNAT"])
def test_a_live_flow_keeps_its_backend(bench: Bench, net: Net, l4: Make, *, local: bool) -> None:
    """Other backends come, its own is draining: the next packet goes where the first one went."""
    mine = net.here if local else net.there
    others = [f"{net.at(net.local[1], BACKEND)} n1", f"{net.at(net.remote[1], BACKEND)} n2"]
    bench.give(offered(net, l4, mine))
    first = bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80))).packet
    bench.run("lb_out" if local else "lb_in", bytes(answer(Ether(first))))
    bench.change(offered(net, l4, f"{mine} draining", *others))
    for _ in range(20):
        assert bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80))).packet == first
