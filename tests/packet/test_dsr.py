"""Direct server return: wrapped for the backend's node by tc and XDP, unwrapped there."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.layout import FlowState, Forwarding, Reason
from lb.model import Way
from tests.packet.bench import NODE, NODE_MAC, PEER, ROUTER_MAC, Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.given import Given
from tests.packet.net import BACKEND, V4, Net, offered
from tests.packet.packets import Make, answer, difference, network, tcp, udp
from tests.packet.sums import wrong

PEER_MAC = "02:00:00:00:00:02"
XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4


def far(net: Net, l4: Make, *more: str) -> Given:
    """A service whose backend is on n2, by DSR."""
    return offered(net, l4, net.there, *more, forwarding=Way.DSR)


def wrapped(net: Net, inner: Packet, source: str, *, tos: int = 0) -> Packet:
    """What goes to the backend's node: the packet with one hop less in an outer header."""
    payload = network(inner).copy()
    if net is V4:
        outer: Packet = IP(
            src=source, dst=net.remote[0], proto=4, ttl=64, id=BACKEND, flags="DF", tos=tos
        )
    else:
        outer = IPv6(src=source, dst=net.remote[0], nh=41, hlim=64, fl=BACKEND, tc=tos)
    return Ether(src=NODE_MAC, dst=PEER_MAC) / outer / payload


def whole(packet: Packet) -> Packet:
    """The packet with DF, as TCP has it and UDP of Linux, too."""
    if IP in packet:
        packet[IP].flags = "DF"
    return packet


def sent(net: Net, l4: Make, *, hops: int = 64, flags: str = "S", port: int = 40000) -> Packet:
    """From the client to the service."""
    return whole(l4(net.client, port, net.vip, 80, hops=hops, flags=flags))


def own(net: Net) -> str:
    """This node's address."""
    return NODE[4 if net is V4 else 6]


def peer(net: Net) -> str:
    """The other node's."""
    return PEER[4 if net is V4 else 6]


def test_wrapped_by_xdp(bench: Bench, net: Net, l4: Make) -> None:
    """Sent to the backend's node at once: outer header, one hop less, all else untouched."""
    bench.give(far(net, l4))
    ran = bench.run("lb_xdp", bytes(sent(net, l4)))
    assert ran.verdict == XDP_REDIRECT
    wanted = wrapped(net, sent(net, l4, hops=63), own(net))
    assert not difference(wanted, ran.packet)


def test_wrapped_by_tc(bench: Bench, net: Net, l4: Make) -> None:
    """The same, but for the link header, which the kernel writes."""
    bench.give(far(net, l4))
    ran = bench.run("lb_in", bytes(sent(net, l4)))
    assert ran.verdict == Verdict.SEND
    wanted = wrapped(net, sent(net, l4, hops=63), own(net))
    assert not difference(network(wanted), bytes(network(Ether(ran.packet))))


@pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])
@pytest.mark.parametrize("tos", [0xB8, 0x03])
def test_class_and_congestion_are_copied(
    bench: Bench, net: Net, l4: Make, program: str, tos: int
) -> None:
    """The outer header says what the inner one does (RFC 2983, RFC 6040)."""
    bench.give(far(net, l4))
    packet = sent(net, l4)
    network(packet).setfieldval("tos" if net is V4 else "tc", tos)
    outer = network(Ether(bench.run(program, bytes(packet)).packet))
    assert (outer.tos if net is V4 else outer.tc) == tos


@pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])
def test_a_flow_keeps_its_backend(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """Others come, its own is draining: packets of known connections go where the first went."""
    bench.give(far(net, l4))
    for port in range(40000, 40020):
        bench.run(program, bytes(sent(net, l4, port=port)))
    others = [f"{net.at(net.remote[1], BACKEND)} n2", net.here]
    bench.change(offered(net, l4, f"{net.there} draining", *others, forwarding=Way.DSR))
    for port in range(40000, 40020):
        ran = bench.run(program, bytes(sent(net, l4, port=port, flags="A")))
        assert network(Ether(ran.packet)).dst == net.remote[0]
    fresh = {
        network(Ether(bench.run(program, bytes(sent(net, l4, port=port))).packet)).dst
        for port in range(41000, 41050)
    }
    assert net.remote[0] not in fresh


def test_a_datagram_leaves_a_backend_that_is_gone(bench: Bench, net: Net) -> None:
    """The very next one goes to another."""
    bench.give(far(net, udp))
    bench.run("lb_xdp", bytes(sent(net, udp)))
    other = f"{net.at(net.remote[1], BACKEND)} n2"
    bench.change(offered(net, udp, other, forwarding=Way.DSR))
    ran = bench.run("lb_xdp", bytes(sent(net, udp)))
    assert network(Ether(ran.packet)).dst == net.remote[1]


def test_a_backend_of_this_node_is_handed_up(bench: Bench, net: Net, l4: Make) -> None:
    """XDP leaves it to tc, which translates it as ever."""
    bench.give(offered(net, l4, net.here, forwarding=Way.DSR))
    packet = sent(net, l4)
    ran = bench.run("lb_xdp", bytes(packet))
    assert (ran.verdict, ran.packet) == (XDP_PASS, bytes(packet))
    wanted = whole(l4(net.client, 40000, net.local[0], BACKEND))
    play(bench, Case("here", None, packet, Verdict.PASS, wanted))


@pytest.mark.parametrize("octets", [1480, 1500])
def test_too_big_for_the_way(bench: Bench, net: Net, l4: Make, octets: int) -> None:
    """Up to the MTU without the outer header it goes; beyond, XDP hands it up and tc says so."""
    room = 1500 - (20 if net is V4 else 40)
    bench.give(far(net, l4))
    packet = sent(net, l4)
    head = len(bytes(network(packet))) - len(bytes(packet[Raw]))
    packet[Raw].load = bytes(octets - head)
    packet = Ether(bytes(packet.__class__(bytes(_fresh(packet)))))
    fits = octets <= room
    assert (bench.run("lb_xdp", bytes(packet)).verdict == XDP_REDIRECT) == fits
    before = bench.counted().get(Reason.TOO_BIG, 0)
    ran = bench.run("lb_in", bytes(packet))
    assert ran.verdict == Verdict.SEND
    if not fits:
        told = bytes(network(Ether(ran.packet)).payload)
        assert (told[0], told[1]) == ((3, 4) if net is V4 else (2, 0))
        assert int.from_bytes(told[4:8], "big") == room
        assert wrong(ran.packet) == []
    assert bench.counted().get(Reason.TOO_BIG, 0) - before == (0 if fits else 1)


def _fresh(packet: Packet) -> Packet:
    """With lengths and checksums made anew."""
    made = packet.copy()
    layer = made
    while layer:
        for name in ("len", "plen", "chksum"):
            if name in layer.fields:
                layer.delfieldval(name)
        layer = layer.payload
    return made


def test_a_packet_that_may_be_cut_goes_by_snat(bench: Bench, l4: Make) -> None:
    """IPv4 without DF, too long to be wrapped: this node's address, as without DSR."""
    net = V4
    bench.give(far(net, l4))
    packet = l4(net.client, 40000, net.vip, 80)
    head = len(bytes(network(packet))) - len(bytes(packet[Raw]))
    packet[Raw].load = bytes(1500 - head)
    got = Ether(bench.run("lb_in", bytes(_fresh(packet))).packet)
    assert (got[IP].src, got[IP].dst, got[IP].proto != 4) == (NODE[4], net.remote[0], True)


def given_back(net: Net, inner: Packet, source: str) -> Packet:
    """A packet that another node wrapped for the pod of this one."""
    packet = wrapped(net, inner, source)
    packet[Ether].src, packet[Ether].dst = ROUTER_MAC, NODE_MAC
    network(packet).dst = net.local[0]
    return Ether(bytes(_fresh(packet)))


def test_unwrapped(bench: Bench, net: Net, l4: Make) -> None:
    """The pod gets the client's packet; its answer leaves as the service's."""
    bench.give(offered(net, l4, net.here, forwarding=Way.DSR))
    got = bench.run("lb_in", bytes(given_back(net, sent(net, l4), peer(net))))
    assert got.verdict == Verdict.PASS
    wanted = whole(l4(net.client, 40000, net.local[0], BACKEND))
    assert not difference(network(wanted), bytes(network(Ether(got.packet))))
    (flow,) = bench.flows()
    assert (flow.mode, flow.state) == (Forwarding.DSR, FlowState.NEW)
    back = whole(answer(Ether(got.packet)))
    restored = whole(l4(net.vip, 80, net.client, 40000, flags="SA"))
    play(bench, Case("answer", None, back, Verdict.PASS, restored, program="lb_out"))


def test_only_from_nodes_of_the_cluster(bench: Bench, net: Net, l4: Make) -> None:
    """From anybody else a wrapped packet is the host's own business."""
    given = (offered(net, l4, net.here, forwarding=Way.DSR),)
    stranger = given_back(net, sent(net, l4), net.neighbour)
    play(bench, Case("stranger", given, stranger))


def test_for_a_service_that_is_not_known_here(bench: Bench, net: Net, l4: Make) -> None:
    """Whatever a node hands over is dropped, and counted, if no service has that address."""
    other = l4(net.client, 40000, net.neighbour, 80)
    case = Case(
        "unknown", (offered(net, l4, net.here),), given_back(net, other, peer(net)),
        Verdict.DROP, None, {Reason.NOT_SERVED: 1},
    )  # fmt: skip
    play(bench, case)


def test_a_tunnel_of_the_pods_network_passes(bench: Bench, net: Net, l4: Make) -> None:
    """Between the nodes themselves, with packets of pods in it, as Calico has it: not ours."""
    bench.give(offered(net, l4, net.here, forwarding=Way.DSR))
    theirs, ours = (
        given_back(net, inner, peer(net))
        for inner in (l4(net.remote[0], 40000, net.local[0], 80), sent(net, l4))
    )
    for packet in (theirs, ours):
        network(packet).dst = own(net)
    play(bench, Case("of pods", None, Ether(bytes(_fresh(theirs)))))
    ran = bench.run("lb_in", bytes(_fresh(ours)))  # for a backend on the node's own network
    assert network(Ether(ran.packet)).src == net.client


@pytest.mark.parametrize("offered_mss", [1460, 1300])
def test_clients_are_asked_for_segments_that_fit(bench: Bench, net: Net, offered_mss: int) -> None:
    """The backend's SYN says at most what fits wrapped; a smaller wish stays."""
    bench.give(offered(net, tcp, net.here, forwarding=Way.DSR))
    got = Ether(bench.run("lb_in", bytes(given_back(net, sent(net, tcp), peer(net)))).packet)
    back = whole(answer(got))
    back[TCP].options = [("NOP", None), ("MSS", offered_mss), ("SAckOK", b"")]
    ran = bench.run("lb_out", bytes(_fresh(back)))
    most = 1500 - (60 if net is V4 else 100)
    found = dict(Ether(ran.packet)[TCP].options)["MSS"]
    assert found == min(offered_mss, most)
    restored = whole(tcp(net.vip, 80, net.client, 40000, flags="SA"))
    restored[TCP].options = [("NOP", None), ("MSS", found), ("SAckOK", b"")]
    assert not difference(_fresh(restored), ran.packet)


@pytest.mark.parametrize("program", ["lb_xdp", "lb_in"])
def test_show_flows_finds_them_again(bench: Bench, net: Net, l4: Make, program: str) -> None:
    """From 32 bytes: the client, the backend, and by the tag which frontend was asked."""
    bench.give(far(net, l4))
    ports = (40000, 40001, 65535)
    for port in ports:
        bench.run(program, bytes(sent(net, l4, port=port)))
    seen = {(row["client"], row["frontend"], row["backend"]) for row in bench.direct_flows()}
    backend = net.at(net.remote[0], BACKEND)
    wanted = {
        (net.at(net.client, port), net.at(net.vip, 80), backend) for port in (40000, 40001, 65535)
    }
    assert seen == wanted
    bench.run(program, bytes(sent(net, l4, port=40000, flags="R")))
    rows = bench.direct_flows()
    assert len(rows) == (2 if l4 is tcp else 3)
    assert {row["mode"] for row in rows} == {"dsr"}
