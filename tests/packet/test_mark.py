"""Direct server return by an IP option: marked for the backend's node, and read there."""

from __future__ import annotations

import pytest
from hypothesis import given
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import HBHOptUnknown, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.layout import FlowState, Forwarding, Reason
from lb.address import parse
from lb.model import Dispatch, Way
from tests.packet.bench import NODE_MAC, ROUTER_MAC, Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.given import Given
from tests.packet.net import BACKEND, V4, Net, offered
from tests.packet.packets import Make, answer, difference, ends, network, tcp, udp
from tests.packet.sums import wrong
from tests.packet.test_dsr import (
    PEER_MAC,
    XDP_REDIRECT,
    _fresh,
    own,
    peer,
    sent,
    whole,
)
from tests.packet.test_mutated import MANY, MUTATIONS, SHORTEST, Mutation

PROGRAMS = pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])


def offered_opt(net: Net, l4: Make, *backends: str) -> Given:
    """A service by DSR with marks."""
    return offered(net, l4, *backends, forwarding=Way.DSR, dispatch=Dispatch.OPT)


def marked(net: Net, source: str, backend: str, said: Packet, asked: tuple[str, int]) -> Packet:
    """From a node to a backend; the mark says whom `said` is from, and what was asked."""
    who, where = parse(network(said).src), parse(asked[0])
    port = asked[1].to_bytes(2)
    if net is V4:
        data = port + who[12:] + where[12:]
        head = IP(
            src=source, dst=backend, ttl=network(said).ttl, id=4711, flags="DF",
            options=[IPOption(copy_flag=1, optclass=0, option=30, value=data)],
        )  # fmt: skip
    else:
        option = HBHOptUnknown(otype=0x5E, optdata=port + bytes(2) + who + where)
        head = IPv6(src=source, dst=backend, hlim=network(said).hlim) / IPv6ExtHdrDestOpt(
            options=[option], autopad=0
        )
    l4 = network(said).payload.copy()
    l4.dport = BACKEND
    packet = Ether(src=NODE_MAC, dst=PEER_MAC) / head / l4
    return Ether(bytes(_fresh(Ether(bytes(packet)))))


def given_back(net: Net, l4: Make, source: str, *, flags: str = "S") -> Packet:
    """What another node marked for the pod of this one."""
    packet = marked(net, source, net.local[0], sent(net, l4, flags=flags), (net.vip, 80))
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    return packet


@pytest.mark.parametrize("flags", ["S", "A"])
def test_marked_by_xdp(bench: Bench, net: Net, l4: Make, flags: str) -> None:
    """Sent to the backend from this node; the mark says from whom to whom it was."""
    bench.give(offered_opt(net, l4, net.there))
    bench.run("lb_xdp", bytes(sent(net, l4)))
    ran = bench.run("lb_xdp", bytes(sent(net, l4, flags=flags)))
    assert ran.verdict == XDP_REDIRECT
    went = sent(net, l4, hops=63, flags=flags)
    wanted = marked(net, own(net), net.remote[0], went, (net.vip, 80))
    assert not difference(wanted, ran.packet)


@pytest.mark.parametrize("flags", ["S", "A"])
def test_marked_by_tc(bench: Bench, net: Net, l4: Make, flags: str) -> None:
    """The same, but for the link header, which the kernel writes."""
    bench.give(offered_opt(net, l4, net.there))
    ran = bench.run("lb_in", bytes(sent(net, l4, flags=flags)))
    assert ran.verdict == Verdict.SEND
    went = sent(net, l4, hops=63, flags=flags)
    wanted = marked(net, own(net), net.remote[0], went, (net.vip, 80))
    assert not difference(network(wanted), bytes(network(Ether(ran.packet))))


@PROGRAMS
def test_no_checksum_stays_none(bench: Bench, program: str) -> None:
    """A datagram over IPv4 that was sent without one."""
    net = V4
    bench.give(offered_opt(net, udp, net.there))
    packet = sent(net, udp)
    packet[UDP].chksum = 0
    assert Ether(bench.run(program, bytes(packet)).packet)[UDP].chksum == 0


@PROGRAMS
def test_a_flow_keeps_its_backend(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """Others come, its own is draining: packets of known connections go where the first went."""
    bench.give(offered_opt(net, l4, net.there))
    bench.run(program, bytes(sent(net, l4)))
    other = f"{net.at(net.remote[1], BACKEND)} n2"
    bench.change(offered_opt(net, l4, f"{net.there} draining", other))
    ran = bench.run(program, bytes(sent(net, l4, flags="A")))
    assert network(Ether(ran.packet)).dst == net.remote[0]


@pytest.mark.parametrize("more", [0, 1])
def test_too_big_for_the_way(bench: Bench, net: Net, l4: Make, more: int) -> None:
    """Up to the MTU without the mark it goes; beyond, XDP hands it up and tc says so."""
    room = 1500 - (12 if net is V4 else 40)
    bench.give(offered_opt(net, l4, net.there))
    packet = sent(net, l4)
    head = len(bytes(network(packet))) - len(bytes(packet[Raw]))
    packet[Raw].load = bytes(room + more - head)
    packet = Ether(bytes(_fresh(packet)))
    assert (bench.run("lb_xdp", bytes(packet)).verdict == XDP_REDIRECT) is not bool(more)
    before = bench.counted().get(Reason.TOO_BIG, 0)
    ran = bench.run("lb_in", bytes(packet))
    assert bench.counted().get(Reason.TOO_BIG, 0) - before == more
    if more:
        told = bytes(network(Ether(ran.packet)).payload)
        assert int.from_bytes(told[4:8], "big") == room
        assert wrong(ran.packet) == []


def test_a_packet_that_may_be_cut_goes_by_snat(bench: Bench, l4: Make) -> None:
    """IPv4 without DF, too long with a mark: as without DSR."""
    net = V4
    bench.give(offered_opt(net, l4, net.there))
    packet = l4(net.client, 40000, net.vip, 80)
    head = len(bytes(network(packet))) - len(bytes(packet[Raw]))
    packet[Raw].load = bytes(1500 - head)
    got = Ether(bench.run("lb_in", bytes(_fresh(packet))).packet)
    assert (got[IP].dst, got[IP].ihl) == (net.remote[0], 5)


def test_a_client_with_options_of_its_own(bench: Bench, l4: Make) -> None:
    """There is no room for a mark beside them, so SNAT, with its options."""
    net = V4
    bench.give(offered_opt(net, l4, net.there))
    packet = sent(net, l4)
    packet[IP].options = [IPOption(b"\x01\x01\x01\x00")]
    packet = Ether(bytes(_fresh(packet)))
    assert bench.run("lb_xdp", bytes(packet)).packet == bytes(packet)
    got = Ether(bench.run("lb_in", bytes(packet)).packet)
    assert (got[IP].src, got[IP].dst, got[IP].ihl) == (own(net), net.remote[0], 6)


def test_unmarked(bench: Bench, net: Net, l4: Make) -> None:
    """The pod gets the client's packet; its answer leaves as the service's."""
    bench.give(offered_opt(net, l4, net.here))
    packet = given_back(net, l4, peer(net))
    assert bench.run("lb_xdp", bytes(packet)).packet == bytes(packet)
    got = bench.run("lb_in", bytes(packet))
    assert got.verdict == Verdict.PASS
    wanted = whole(l4(net.client, 40000, net.local[0], BACKEND))
    assert not difference(network(wanted), bytes(network(Ether(got.packet))))
    (flow,) = bench.flows()
    assert (flow.mode, flow.state, flow.packets) == (Forwarding.DSR, FlowState.NEW, 1)
    back = whole(answer(Ether(got.packet)))
    restored = whole(l4(net.vip, 80, net.client, 40000, flags="SA"))
    play(bench, Case("answer", None, back, Verdict.PASS, restored, program="lb_out"))


def test_there_and_back_again(bench: Bench, net: Net, l4: Make) -> None:
    """What XDP marks is what is read: nothing but one hop is lost on the way."""
    bench.give(offered_opt(net, l4, net.there))
    went = Ether(bench.run("lb_xdp", bytes(sent(net, l4))).packet)
    bench.give(offered_opt(net, l4, net.at(net.remote[0], BACKEND) + " n1"))
    network(went).src = peer(net)
    came = Ether(bytes(_fresh(went)))
    came[Ether].src, came[Ether].dst = ROUTER_MAC, NODE_MAC
    got = bench.run("lb_in", bytes(came))
    wanted = whole(l4(net.client, 40000, net.remote[0], BACKEND, hops=63))
    assert not difference(network(wanted), bytes(network(Ether(got.packet))))


def test_packets_of_one_flow(bench: Bench, net: Net, l4: Make) -> None:
    """They are counted where they are answered."""
    bench.give(offered_opt(net, l4, net.here))
    bench.run("lb_in", bytes(given_back(net, l4, peer(net))))
    bench.run("lb_in", bytes(given_back(net, l4, peer(net), flags="A")))
    (flow,) = bench.flows()
    octets = len(bytes(network(sent(net, l4))))
    assert (flow.packets, flow.octets) == (2, 2 * octets)


@pytest.mark.parametrize("flags", ["S", "A"])
def test_only_from_nodes_of_the_cluster(bench: Bench, net: Net, l4: Make, flags: str) -> None:
    """From anybody else a mark that names a service is dropped, and counted."""
    given = (offered_opt(net, l4, net.here),)
    stranger = given_back(net, l4, net.neighbour, flags=flags)
    play(bench, Case("stranger", given, stranger, Verdict.DROP, None, {Reason.STRANGER: 1}))
    assert not bench.flows()


def test_a_stranger_s_mark_that_names_no_service(bench: Bench, net: Net, l4: Make) -> None:
    """It is an experiment of somebody else's, and passes as it came."""
    given = (offered_opt(net, l4, net.here),)
    packet = marked(net, net.client, net.local[0], sent(net, l4), (net.neighbour, 80))
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    play(bench, Case("experiment", given, packet))


def test_a_stranger_s_mark_in_a_packet_for_a_service(bench: Bench, net: Net, l4: Make) -> None:
    """Whatever that option means to the client, the packet is served as others are."""
    bench.give(offered_opt(net, l4, net.here))
    packet = marked(net, net.client, net.vip, sent(net, l4), (net.neighbour, 80))
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    packet[TCP if l4 is tcp else UDP].dport = 80
    got = Ether(bench.run("lb_in", bytes(_fresh(packet))).packet)
    assert network(got).dst == net.local[0]


def test_for_a_service_that_is_not_known_here(bench: Bench, net: Net, l4: Make) -> None:
    """Whatever a node hands over is dropped, and counted, if no service has that address."""
    packet = marked(net, peer(net), net.local[0], sent(net, l4), (net.neighbour, 80))
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    given = (offered_opt(net, l4, net.here),)
    play(bench, Case("unknown", given, packet, Verdict.DROP, None, {Reason.NOT_SERVED: 1}))


def test_mutated(bench: Bench, net: Net, l4: Make) -> None:
    """Something broken in it, and of a stranger: it is not changed, and no flow begins of it."""
    bench.give(offered_opt(net, l4, net.here))
    packet = bytes(given_back(net, l4, net.neighbour))

    @MANY
    @given(mutations=MUTATIONS)
    def run(mutations: list[Mutation]) -> None:
        frame = packet
        for mutate in mutations:
            frame = mutate(frame)
        if len(frame) >= SHORTEST[net]:
            ran = bench.run("lb_in", frame)
            assert ran.verdict == Verdict.DROP or ran.packet == frame

    run()
    assert not bench.flows()


@pytest.mark.parametrize("program", ["lb_in", "lb_xdp"])
def test_cut_short(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """However little of a marked packet comes, it passes as it came."""
    bench.give(offered_opt(net, l4, net.here))
    packet = bytes(given_back(net, l4, peer(net)))
    head = 14 + (32 if net is V4 else 80) + (20 if l4 is tcp else 8)
    for octets in range(14 + (20 if net is V4 else 40), head):
        ran = bench.run(program, packet[:octets])
        assert ran.packet == packet[:octets]
    assert not bench.flows()


def test_a_ping_with_a_mark(bench: Bench, net: Net) -> None:
    """Only TCP and UDP are handed over: anything else passes."""
    said = ends(net.client, net.vip)
    packet = marked(net, peer(net), net.local[0], said / Raw(bytes(8)), (net.vip, 80))
    network(packet).setfieldval("proto", 132) if net is V4 else None
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    play(bench, Case("ping", (offered_opt(net, tcp, net.here),), packet))


@PROGRAMS
def test_show_flows_finds_them_again(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """The client, the frontend and the backend."""
    bench.give(offered_opt(net, l4, net.there))
    bench.run(program, bytes(sent(net, l4)))
    (row,) = bench.direct_flows()
    assert (row["client"], row["frontend"]) == (net.at(net.client, 40000), net.at(net.vip, 80))
