"""Which backend a connection goes to: spread over all of them, kept, and sticky where asked."""

from __future__ import annotations

from collections import Counter

import pytest
from scapy.layers.l2 import Ether

from bpf.layout import Reason
from lb.address import parse
from lb.model import Algorithm
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import BACKEND, V4, Net, offered
from tests.packet.packets import SOME_PORT, Make, answer, network, tcp, udp

KINDS = ("load balancer", "cluster")


def pods(net: Net, count: int) -> list[str]:
    """Backends on the other node."""
    return [f"{net.at(net.remote[0][:-1] + str(number), BACKEND)} n2" for number in range(count)]


def backend(bench: Bench, packet: Ether) -> str:
    """Where the packet goes."""
    ran = bench.run("lb_in", bytes(packet))
    assert ran.verdict == Verdict.SEND
    return network(Ether(ran.packet)).dst


@pytest.mark.parametrize("kind", KINDS)
def test_connections_spread(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """Of 400 connections of one client each of 4 backends gets a fair share."""
    bench.give(offered(net, l4, *pods(net, 4), kind=kind))
    sent = [l4(net.client, 20000 + number, net.vip, 80) for number in range(400)]
    shares = Counter(backend(bench, packet) for packet in sent)
    assert len(shares) == 4
    assert min(shares.values()) > 50


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("program", ["lb_in", "pod_in"])
def test_weights(  # noqa: PLR0917 - fixtures and columns
    bench: Bench, net: Net, l4: Make, kind: str, algorithm: Algorithm, program: str
) -> None:
    """Of 400 connections a backend of weight 3 gets three times as many as one of weight 1."""
    weights = {parse(net.remote[0][:-1] + "1"): 3}
    given = offered(net, l4, *pods(net, 2), kind=kind, algorithm=algorithm, weights=weights)
    bench.give(given)
    shares: Counter[str] = Counter()
    source = net.client if program == "lb_in" else net.local[0]
    for port in range(20000, 20400):
        ran = bench.run(program, bytes(l4(source, port, net.vip, 80)))
        shares[network(Ether(ran.packet)).dst] += 1
    assert len(shares) == 2
    assert shares[net.remote[0][:-1] + "1"] == pytest.approx(300, abs=40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_needs_no_memory(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """A connection whose flow is forgotten goes on to the backend it had."""
    bench.give(offered(net, l4, *pods(net, 7), kind=kind))
    sent = [l4(net.client, 20000 + number, net.vip, 80, flags="A") for number in range(30)]
    before = [backend(bench, packet) for packet in sent]
    bench.forget()
    assert [backend(bench, packet) for packet in sent] == before


@pytest.mark.parametrize("kind", KINDS)
def test_affinity_keeps_a_client(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """All connections of a client go to one backend, while other clients are spread."""
    bench.give(offered(net, l4, *pods(net, 4), kind=kind, affinity=600))
    chosen = {
        client: {backend(bench, l4(client, port, net.vip, 80)) for port in range(20000, 20010)}
        for client in (f"{net.client[:-1]}{number}" for number in range(30, 60))
    }
    assert {len(one) for one in chosen.values()} == {1}
    assert len(set.union(*chosen.values())) == 4


def test_affinity_outlives_a_change_of_backends(bench: Bench, net: Net, l4: Make) -> None:
    """New backends do not move a client; only when its own is gone it gets another."""
    three = pods(net, 3)
    bench.give(offered(net, l4, *three, affinity=600))
    first = backend(bench, l4(net.client, 20000, net.vip, 80))
    bench.change(offered(net, l4, *pods(net, 9), affinity=600))
    assert backend(bench, l4(net.client, 20001, net.vip, 80)) == first
    left = [one for one in three if f"{net.at(first, BACKEND)} n2" != one]
    bench.change(offered(net, l4, *left, affinity=600))
    second = backend(bench, l4(net.client, 20002, net.vip, 80))
    assert second != first
    assert backend(bench, l4(net.client, 20003, net.vip, 80)) == second


def test_a_udp_flow_leaves_a_backend_that_is_gone(bench: Bench) -> None:
    """Datagrams of one socket go to a backend that serves, without a gap."""
    three = pods(V4, 3)
    bench.give(offered(V4, udp, *three))
    sent = udp(V4.client, 20000, V4.vip, 80)
    first = backend(bench, sent)
    bench.change(offered(V4, udp, *[one for one in three if f"{first}:{BACKEND} n2" != one]))
    assert backend(bench, sent) != first


def test_a_new_connection_may_have_an_old_ones_ports(bench: Bench, net: Net) -> None:
    """After both sides' FIN a SYN with the same ports begins a flow of its own."""
    bench.give(offered(net, tcp, net.there))
    got = Ether(bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80))).packet)
    bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80, flags="FA")))
    bench.run("lb_in", bytes(answer(got, flags="FA")))
    bench.run("lb_in", bytes(tcp(net.client, 40000, net.vip, 80)))
    (flow,) = bench.flows()
    assert (flow.state, flow.packets, flow.facts) == (1, 1, 0)


@pytest.mark.parametrize("kind", ["load balancer", "external", "node port"])
def test_a_pod_passes_by_an_external_policy(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """A source that is known to be a pod's reaches endpoints elsewhere; others do not."""
    pod = "10.245.7.7" if net is V4 else "fd00:10:245::7"
    given = (offered(net, l4, net.there, kind=kind, local=True),)
    to = net.address_of(kind)
    wanted = l4(net.node, SOME_PORT, net.remote[0], BACKEND, hops=63)
    play(bench, Case("pod", given, l4(pod, 40000, to, 80), Verdict.SEND, wanted))
    silent = {Reason.NO_LOCAL_BACKEND: 1}
    play(bench, Case("other", None, l4(net.client, 40000, to, 80), Verdict.DROP, None, silent))
