"""What a sender is told whose packet ends here: RST, unreachable, time exceeded, too big."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.layout import AnswerLimit, Reason
from tests.packet.bench import SMALL, Bench
from tests.packet.case import Verdict
from tests.packet.net import BACKEND, V4, V6, Net, offered
from tests.packet.packets import Make, answer, ends, network, tcp, udp
from tests.packet.sums import LINK, wrong

FRAME = Ether(dst="02:00:00:00:00:01")
"""With an address: scapy would ask the network for one."""

KINDS = ("load balancer", "external", "cluster", "node port")
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
UNREACHABLE = {V4: (3, 3), V6: (1, 4)}
EXPIRED = {V4: (11, 0), V6: (3, 0)}
TOO_BIG = {V4: (3, 4), V6: (2, 0)}


def answered(bench: Bench, sent: Packet, reason: Reason) -> Packet:
    """The answer, which goes back, counted once, with right checksums."""
    before = bench.counted().get(reason, 0)
    ran = bench.run("lb_in", bytes(sent))
    assert ran.verdict == Verdict.SEND
    assert bench.counted()[reason] == before + 1
    assert wrong(ran.packet) == []
    got = Ether(ran.packet)
    assert (network(got).src, network(got).dst) == (network(sent).dst, network(sent).src)
    return got


def silent(bench: Bench, sent: Packet, reason: Reason) -> None:
    """Dropped and counted, and not a word."""
    before = bench.counted().get(reason, 0)
    assert bench.run("lb_in", bytes(sent)).verdict == Verdict.DROP
    assert bench.counted()[reason] == before + 1


def check_error(net: Net, got: Packet, sent: Packet, words: tuple[int, int]) -> bytes:
    """An ICMP error of this type and code that quotes `sent` as far as it may; its second word."""
    layer = bytes(network(got).payload)
    assert network(got).nh == 58 if net is V6 else network(got).proto == 1
    assert (layer[0], layer[1]) == words
    quote = bytes(sent)[LINK:][: 1232 if net is V6 else 548]
    assert layer[8:] == quote
    return layer[4:8]


@pytest.mark.parametrize("kind", KINDS)
def test_no_endpoint_refuses_udp(bench: Bench, net: Net, kind: str) -> None:
    """Port unreachable, from the address that was asked."""
    bench.give(offered(net, udp, kind=kind))
    sent = udp(net.client, 40000, net.address_of(kind), 80)
    check_error(net, answered(bench, sent, Reason.NO_BACKEND), sent, UNREACHABLE[net])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", ["S", "SEC", "A", "PA", "FA", "F", "", "SA", "SF"])
def test_no_endpoint_refuses_tcp(bench: Bench, net: Net, kind: str, flags: str) -> None:
    """A RST that its receiver must believe (RFC 9293, 3.10.7.1), whatever came."""
    bench.give(offered(net, tcp, kind=kind))
    sent = tcp(net.client, 40000, net.address_of(kind), 80, flags=flags)
    sent[TCP].seq, sent[TCP].ack = 0xFFFFFFF0, 77
    got = answered(bench, sent, Reason.NO_BACKEND)
    reset = got[TCP]
    assert (reset.sport, reset.dport, reset.window, len(reset)) == (80, 40000, 0, 20)
    if "A" in flags:
        assert (str(reset.flags), reset.seq) == ("R", 77)
    else:
        octets = len(sent[TCP].payload) + ("S" in flags) + ("F" in flags)
        assert (str(reset.flags), reset.seq) == ("RA", 0)
        assert reset.ack == (0xFFFFFFF0 + octets) % (1 << 32)


def test_another_port_of_a_cluster_ip(bench: Bench, net: Net, l4: Make) -> None:
    """The service is there, and has no such port."""
    bench.give(offered(net, l4, net.there, kind="cluster"))
    sent = l4(net.client, 40000, net.vip, 81)
    got = answered(bench, sent, Reason.NO_SERVICE_PORT)
    if l4 is udp:
        check_error(net, got, sent, UNREACHABLE[net])
    else:
        assert str(got[TCP].flags) == "RA"


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_a_reset_is_never_answered(bench: Bench, net: Net, flags: str) -> None:
    """Else two of a kind would go on for ever."""
    bench.give(offered(net, tcp))
    silent(bench, tcp(net.client, 40000, net.vip, 80, flags=flags), Reason.NO_BACKEND)


def test_tcp_options_are_no_data(bench: Bench, net: Net) -> None:
    """A SYN as stacks send it: the RST acknowledges the SYN alone."""
    bench.give(offered(net, tcp))
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None)]
    segment = TCP(sport=40000, dport=80, flags="S", seq=9, options=options)
    got = answered(bench, ends(net.client, net.vip) / segment, Reason.NO_BACKEND)
    assert (got[TCP].ack, len(got[TCP])) == (10, 20)


def test_ip_options_are_quoted(bench: Bench) -> None:
    """Behind IP options a TCP packet is refused by ICMP, which quotes them."""
    bench.give(offered(V4, tcp))
    sent = FRAME / IP(src=V4.client, dst=V4.vip, options=[IPOption_Router_Alert()])
    sent = Ether(bytes(sent / TCP(sport=40000, dport=80) / Raw(bytes(9))))
    sent.dst, sent.src = ends(V4.client, V4.vip).dst, ends(V4.client, V4.vip).src
    check_error(V4, answered(bench, sent, Reason.NO_BACKEND), sent, UNREACHABLE[V4])


NOBODY = [
    *((V4, one) for one in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")),
    *((V6, one) for one in ("::", "ff02::1")),
]


@pytest.mark.parametrize(("net", "source"), NOBODY, ids=[one for _, one in NOBODY])
def test_a_source_that_is_no_host_gets_no_answer(
    bench: Bench, net: Net, l4: Make, source: str
) -> None:
    """RFC 1122, 3.2.2; RFC 4443, 2.4 (e)."""
    bench.give(offered(net, l4))
    silent(bench, l4(source, 40000, net.vip, 80), Reason.NO_BACKEND)


def test_nobody_is_told_of_source_ranges(bench: Bench, net: Net, l4: Make) -> None:
    """Who may not come in learns nothing, also where nobody would serve."""
    near = "198.51.100.0/29" if net is V4 else "2001:db8:51::/125"
    bench.give(offered(net, l4, ranges=(near,)))
    silent(bench, l4(net.client, 40000, net.vip, 80), Reason.SOURCE_RANGE)


def test_nobody_is_told_of_local_policy(bench: Bench, net: Net, l4: Make) -> None:
    """Silence without a backend on this node; a refusal without any (KEP-1669)."""
    bench.give(offered(net, l4, net.there, local=True))
    silent(bench, l4(net.client, 40000, net.vip, 80), Reason.NO_LOCAL_BACKEND)
    bench.change(offered(net, l4, local=True))
    answered(bench, l4(net.client, 40000, net.vip, 80), Reason.NO_BACKEND)


@pytest.mark.parametrize("hops", [0, 1])
def test_the_last_hop(bench: Bench, net: Net, l4: Make, hops: int) -> None:
    """Time exceeded to the client, and on the way back to the backend."""
    bench.give(offered(net, l4, net.there))
    sent = l4(net.client, 40000, net.vip, 80, hops=hops)
    check_error(net, answered(bench, sent, Reason.HOP_LIMIT), sent, EXPIRED[net])
    forth = bench.run("lb_in", bytes(l4(net.client, 40000, net.vip, 80)))
    back = answer(Ether(forth.packet), hops=hops)
    check_error(net, answered(bench, back, Reason.HOP_LIMIT), back, EXPIRED[net])


def sized(sent: Packet, octets: int) -> Packet:
    """The packet with as much payload as makes it so long, IP header included."""
    layer = sent[TCP] if TCP in sent else sent[UDP]
    there = network(sent)
    head = ends(there.src, there.dst) / type(layer)(sport=layer.sport, dport=layer.dport)
    return Ether(bytes(head / Raw(bytes(octets - len(head) + LINK))))


def test_too_big_for_the_way_to_the_backend(bench: Bench, net: Net, l4: Make) -> None:
    """The client is told how long packets may be; one of that length passes."""
    bench.give(offered(net, l4, f"{net.at(SMALL[net is V6].backend, BACKEND)} n2"))
    sent = sized(l4(net.client, 40000, net.vip, 80), 1401)
    got = answered(bench, sent, Reason.TOO_BIG)
    assert check_error(net, got, sent, TOO_BIG[net]) == (1400).to_bytes(4, "big")
    passed = bench.run("lb_in", bytes(sized(sent, 1400)))
    assert passed.verdict == Verdict.SEND
    assert network(Ether(passed.packet)).dst == SMALL[net is V6].backend


def test_too_big_for_the_way_to_the_client(bench: Bench, net: Net, l4: Make) -> None:
    """The backend is told, since it is what sends too much."""
    bench.give(offered(net, l4, net.there))
    forth = bench.run("lb_in", bytes(l4(SMALL[net is V6].client, 40000, net.vip, 80)))
    sent = sized(answer(Ether(forth.packet)), 1401)
    got = answered(bench, sent, Reason.TOO_BIG)
    assert check_error(net, got, sent, TOO_BIG[net]) == (1400).to_bytes(4, "big")
    assert network(got).dst == net.remote[0]
    passed = bench.run("lb_in", bytes(sized(sent, 1400)))
    assert network(Ether(passed.packet)).dst == SMALL[net is V6].client


@pytest.mark.parametrize("net", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("l4", [tcp, udp], ids=["TCP", "UDP"])
@MANY
@given(payload=st.binary(max_size=1420), hops=st.integers(0, 255), none=st.booleans())
def test_checksums_of_any_answer(  # noqa: PLR0917 - fixtures and what hypothesis makes
    bench: Bench,
    net: Net,
    l4: Make,
    payload: bytes,
    hops: int,
    none: bool,  # noqa: FBT001
) -> None:
    """Of any payload and length, with and without a UDP checksum."""
    bench.give(offered(net, l4))
    head = ends(net.client, net.vip, hops)
    sent = head / (TCP if l4 is tcp else UDP)(sport=40000, dport=80) / Raw(payload)
    if none and l4 is udp:
        sent[UDP].chksum = 0
    sent = Ether(bytes(sent))
    got = answered(bench, sent, Reason.NO_BACKEND)
    if l4 is udp:
        check_error(net, got, sent, UNREACHABLE[net])


def test_padding_is_not_quoted(bench: Bench) -> None:
    """What the link added to a short frame is no part of the packet."""
    bench.give(offered(V4, udp))
    sent = ends(V4.client, V4.vip) / UDP(sport=40000, dport=80)
    frame = Ether(bytes(sent) + bytes(18))
    check_error(V4, answered(bench, frame, Reason.NO_BACKEND), Ether(bytes(sent)), UNREACHABLE[V4])


def test_answers_have_a_limit(bench: Bench, net: Net, l4: Make) -> None:
    """Beyond it packets are dropped in silence, by a reason of their own."""
    bench.give(offered(net, l4))
    before = bench.counted().get(Reason.ANSWER_LIMIT, 0)
    frame = bytes(l4(net.client, 40000, net.vip, 80))
    bench.exhaust_answers()
    ran = bench.run_all("lb_in", [frame] * 50)
    dropped = sum(one.verdict == Verdict.DROP for one in ran)
    assert dropped > 25
    assert bench.counted()[Reason.ANSWER_LIMIT] == before + dropped
    bench.forget()
    ran = bench.run_all("lb_in", [frame] * (AnswerLimit.AT_ONCE // 2))
    assert {one.verdict for one in ran} == {Verdict.SEND}


def test_an_answer_is_never_answered(bench: Bench, net: Net, l4: Make) -> None:
    """What comes of a refusal, fed in again, begins no conversation."""
    bench.give(offered(net, l4))
    got = answered(bench, l4(net.client, 40000, net.vip, 80), Reason.NO_BACKEND)
    assert (IPv6 if net is V6 else IP) in got
    there = network(got)
    there.src, there.dst = there.dst, there.src
    if ICMP in got:
        del got[ICMP].chksum
    if net is V4:
        del there.chksum
    assert bench.run("lb_in", bytes(got)).verdict in {Verdict.PASS, Verdict.DROP}
