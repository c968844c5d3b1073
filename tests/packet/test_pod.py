"""Packets of pods whose sockets no hook sees, and the answers to them."""

from __future__ import annotations

import pytest

from bpf.layout import FlowState, Forwarding, Reason
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import BACKEND, Net, offered
from tests.packet.packets import SOME_PORT, Make, answer, tcp, transport

KINDS = ("load balancer", "external", "cluster", "node port")
PODS = "pod_in"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_to_a_backend(bench: Bench, net: Net, l4: Make, kind: str, *, near: bool) -> None:
    """Wherever it runs only the destination is rewritten; the answer gets the service's source."""
    vip, pod = net.address_of(kind), net.local[1]
    given = (offered(net, l4, net.here if near else net.there, kind=kind),)
    backend = (net.local if near else net.remote)[0]
    got = play(
        bench,
        Case(kind, given, l4(pod, 40000, vip, 80), Verdict.PASS,
             l4(pod, 40000, backend, BACKEND), program=PODS),
    )  # fmt: skip
    (flow,) = bench.flows()
    assert (flow.mode, flow.port) == (Forwarding.LOCAL, 0)
    restored = l4(vip, 80, pod, 40000, flags="SA")
    play(bench, Case("answer", None, answer(got), Verdict.PASS, restored, program="lb_out"))


@pytest.mark.parametrize("kind", KINDS)
def test_to_itself(bench: Bench, net: Net, l4: Make, kind: str) -> None:
    """A pod that is its own backend sees the node as its client, and as a client the service."""
    vip, pod = net.address_of(kind), net.local[0]
    given = (offered(net, l4, net.here, kind=kind),)
    forth = Case(
        kind, given, l4(pod, 40000, vip, 80), Verdict.SEND,
        l4(net.node, SOME_PORT, pod, BACKEND, hops=63), program=PODS,
    )  # fmt: skip
    got = play(bench, forth)
    restored = l4(vip, 80, pod, 40000, flags="SA", hops=63)
    back = play(bench, Case("back", None, answer(got), Verdict.SEND, restored, program=PODS))
    for passing in (got, back):  # on their way out to the pod
        play(bench, Case("unchanged", None, passing, program="lb_out"))
    again = play(bench, forth._replace(given=None))
    assert transport(again).sport == transport(got).sport


@pytest.mark.parametrize("way", list(Way))
def test_a_remote_client_that_is_its_own_backend(
    bench: Bench, net: Net, l4: Make, way: Way
) -> None:
    """From outside, too: it sees this node, and its own answer comes back as the service's."""
    client = net.remote[0]
    given = (offered(net, l4, net.there, forwarding=way),)
    forth = Case(
        "forth", given, l4(client, 40000, net.vip, 80), Verdict.SEND,
        l4(net.node, SOME_PORT, client, BACKEND, hops=63),
    )  # fmt: skip
    got = play(bench, forth)
    again = play(bench, forth._replace(given=None))
    assert transport(again).sport == transport(got).sport
    back = answer(got)
    wanted = l4(net.vip, 80, client, 40000, flags="SA", hops=63)
    play(bench, Case("back", None, back, Verdict.SEND, wanted))


def test_what_is_translated_already(bench: Bench, net: Net, l4: Make) -> None:
    """A packet straight to a backend, as a hook's sockets send, passes, and makes no flow."""
    bench.give(offered(net, l4, net.here, net.there))
    for backend in (net.local[0], net.remote[0]):
        for source in net.local:
            sent = l4(source, 40000, backend, BACKEND)
            play(bench, Case(f"{source} {backend}", None, sent, program=PODS))
            play(bench, Case("answer", None, answer(sent), program="lb_out"))
    assert bench.flows() == []


@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_a_port_that_goes_straight(bench: Bench, net: Net, l4: Make, *, near: bool) -> None:
    """A new connection straight to the backend, from a flow's port, gets the backend's answers."""
    bench.give(offered(net, l4, net.here if near else net.there))
    pod, backend = net.local[1], (net.local if near else net.remote)[0]
    bench.run(PODS, bytes(l4(pod, 40000, net.vip, 80)))
    straight = l4(pod, 40000, backend, BACKEND)
    play(bench, Case("straight", None, straight, program=PODS))
    play(bench, Case("its answer", None, answer(straight), program="lb_out"))
    assert bench.flows() == []


def test_an_established_connection_is_not_forgotten(bench: Bench, net: Net) -> None:
    """Only a SYN begins: a stray segment straight to the backend ends no flow."""
    bench.give(offered(net, tcp, net.there))
    pod = net.local[1]
    bench.run(PODS, bytes(tcp(pod, 40000, net.vip, 80)))
    bench.run(PODS, bytes(tcp(pod, 40000, net.remote[0], BACKEND, flags="A")))
    (flow,) = bench.flows()
    assert flow.state == FlowState.NEW


def test_no_wrapping(bench: Bench, net: Net, l4: Make) -> None:
    """Direct server return is for clients outside: a pod's packets are only given a destination."""
    pod = net.local[1]
    given = (offered(net, l4, net.there, forwarding=Way.DSR),)
    sent, wanted = l4(pod, 40000, net.vip, 80), l4(pod, 40000, net.remote[0], BACKEND)
    play(bench, Case("wrapped", given, sent, Verdict.PASS, wanted, program=PODS))


def test_policy_inside(bench: Bench, net: Net, l4: Make) -> None:
    """An external policy Local does not bind pods."""
    pod = net.local[1]
    given = (offered(net, l4, net.there, local=True),)
    sent, wanted = l4(pod, 40000, net.vip, 80), l4(pod, 40000, net.remote[0], BACKEND)
    play(bench, Case("external", given, sent, Verdict.PASS, wanted, program=PODS))


def test_source_ranges(bench: Bench, net: Net, l4: Make) -> None:
    """They bind pods, as with kube-proxy."""
    prefix = f"{net.local[1]}/{128 if ':' in net.vip else 32}"
    bench.give(offered(net, l4, net.there, ranges=(prefix,)))
    sent = l4(net.local[1], 40000, net.vip, 80)
    wanted = l4(net.local[1], 40000, net.remote[0], BACKEND)
    play(bench, Case("inside", None, sent, Verdict.PASS, wanted, program=PODS))
    other = l4(net.local[0], 40000, net.vip, 80)
    counted = {Reason.SOURCE_RANGE: 1}
    play(bench, Case("other", None, other, Verdict.DROP, counted=counted, program=PODS))


def test_session_affinity(bench: Bench, net: Net, l4: Make) -> None:
    """A pod stays with its backend over many ports."""
    bench.give(offered(net, l4, *(net.at(a, BACKEND) + " n2" for a in net.remote), affinity=60))
    met = set()
    for port in range(40000, 40020):
        ran = bench.run(PODS, bytes(l4(net.local[1], port, net.vip, 80)))
        met.add(ran.packet[30:34] if ran.packet[12:14] == b"\x08\x00" else ran.packet[38:54])
    assert len(met) == 1


def test_flows_of_pods_find_room(bench: Bench, net: Net, l4: Make) -> None:
    """500 connections of one pod to one backend are all remembered, each with its own answer."""
    bench.give(offered(net, l4, net.there))
    pod = net.local[1]
    for port in range(40000, 40500):
        bench.run(PODS, bytes(l4(pod, port, net.vip, 80)))
    assert len(bench.flows()) == 500
    for port in range(40000, 40500):
        back = l4(net.remote[0], BACKEND, pod, port, flags="SA")
        restored = l4(net.vip, 80, pod, port, flags="SA")
        play(bench, Case(str(port), None, back, Verdict.PASS, restored, program="lb_out"))


def test_a_connection_from_before_is_the_stacks(bench: Bench, net: Net) -> None:
    """One that began without us has its backend in kube-proxy's connection tracking."""
    bench.give(offered(net, tcp, net.here, net.there))
    for flags in ("A", "FA", "PA"):
        sent = tcp(net.local[1], 40000, net.vip, 80, flags=flags)
        play(bench, Case(flags, None, sent, program=PODS))
    assert bench.flows() == []
