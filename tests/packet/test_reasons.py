"""Every reason for which a packet is dropped, a row each, and what is next to it and passes."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace
from scapy.layers.l2 import Ether

from bpf.layout import FlowState, Reason
from bpf.libbpf import Ran
from bpf.source import joined
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.net import BACKEND, V4, V6, Net, offered
from tests.packet.packets import PORTS, Make, answer, tcp, udp

NOT_OF_ONE_PACKET = {
    Reason.NONE: "is none",
    Reason.NO_MEMORY: "only sockets need memory",
    Reason.REWRITE: "no packet of these rows makes the kernel refuse",
    Reason.NOT_SERVED: "in test_dsr.py",
    Reason.NO_PORT: "has a test of its own: it takes thousands of packets",
    Reason.NO_BACKEND: "is answered: test_answers.py",
    Reason.HOP_LIMIT: "is answered: test_answers.py",
    Reason.TOO_BIG: "is answered: test_answers.py",
    Reason.NO_SERVICE_PORT: "is answered: test_answers.py",
    Reason.ANSWER_LIMIT: "test_answers.py",
    Reason.FRAGMENT: "test_fragments.py",
    Reason.STRANGER: "in test_mark.py",
}


def _rows(net: Net, l4: Make) -> tuple[Case, ...]:
    def dropped(name: str, reason: Reason, *given: str, **more: object) -> Case:
        one = offered(net, l4, *given, **more)
        sent = l4(net.client, 40000, net.vip, 80)
        return Case(name, (one,), sent, Verdict.DROP, None, {reason: 1})

    near = "198.51.100.0/29" if net is V4 else "2001:db8:51::/125"
    nowhere = f"{net.at(net.nowhere, BACKEND)} n3"
    rows = [
        dropped("outside the source ranges", Reason.SOURCE_RANGE, net.here, ranges=(near,)),
        dropped("outside, without a backend", Reason.SOURCE_RANGE, ranges=(near,)),
        dropped("Local policy, none here", Reason.NO_LOCAL_BACKEND, net.there, local=True),
        dropped("no way to the backend", Reason.NO_ROUTE, nowhere),
    ]
    there = offered(net, l4, net.there, kind="cluster")
    stray = l4(net.client, 40000, "10.97.1.2" if net is V4 else "fd00:10:97::2", 80)
    rows += [
        Case(
            "out to an address of a ServiceCIDR", (there,), stray, Verdict.DROP, None,
            {Reason.UNALLOCATED: 1}, "lb_out",
        ),
    ]  # fmt: skip
    return tuple(rows)


ROWS = [
    pytest.param(row, id=f"{row.name}, {label}")
    for label, net, l4 in (
        ("IPv4 TCP", V4, tcp), ("IPv4 UDP", V4, udp), ("IPv6 TCP", V6, tcp), ("IPv6 UDP", V6, udp),
    )
    for row in _rows(net, l4)
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_dropped_with_its_reason(bench: Bench, case: Case) -> None:
    """The packet goes, and its reason is counted once."""
    play(bench, case)


BY_XDP = (Reason.SOURCE_RANGE, Reason.NO_LOCAL_BACKEND)
"""What XDP itself drops; all else goes up to tc, which may have an answer for it."""
NOT_BY_XDP = {
    Reason.NO_MEMORY: "only sockets need memory",
    Reason.NO_BACKEND: "is answered, so it is handed up",
    Reason.NO_SERVICE_PORT: "is answered, so it is handed up",
    Reason.REWRITE: "no packet of these rows is out of XDP's reach",
    Reason.NO_ROUTE: "only where this node loses its own address",
}


@pytest.mark.parametrize("case", [row for row in ROWS if row.values[0].program == "lb_in"])
@pytest.mark.parametrize("forwarding", [Way.SNAT, Way.DSR])
def test_dropped_by_xdp_or_handed_up(bench: Bench, case: Case, forwarding: Way) -> None:
    """Not changed, and counted once by whoever drops it."""
    assert case.given is not None
    (one,) = case.given
    (reason,) = case.counted
    given = (one._replace(service=replace(one.service, forwarding=forwarding)),)
    drops = reason is BY_XDP[0] or (reason is BY_XDP[1] and forwarding is Way.DSR)
    here = case._replace(given=given, program="lb_xdp")
    if drops:
        play(bench, here)
        return
    play(bench, here._replace(verdict=Verdict.PASS, counted={}))
    play(bench, case._replace(given=None))


def test_every_reason_of_xdp_is_known() -> None:
    """A reason that is new to xdp.c has to come here, or to say why it cannot."""
    used = {Reason[name] for name in re.findall(r"\bREASON_(\w+)\b(?! =)", joined("xdp.c"))}
    assert used - set(BY_XDP) == NOT_BY_XDP.keys()


def test_every_reason_of_the_programs_has_a_row() -> None:
    """A reason that is new to lb.c has to come here, or to say why it cannot."""
    shown = {reason for row in ROWS for reason in row.values[0].counted}
    text = joined("lb.c")
    used = {Reason[name] for name in re.findall(r"\bREASON_(\w+)\b(?! =)", text)}
    assert used - shown - NOT_OF_ONE_PACKET.keys() == set()
    assert not shown & NOT_OF_ONE_PACKET.keys()


def test_the_last_hop_to_this_node(bench: Bench, net: Net, l4: Make) -> None:
    """A backend of this node is no hop further for us; the stack counts its own."""
    given = (offered(net, l4, net.here),)
    sent = l4(net.client, 40000, net.vip, 80, hops=1)
    wanted = l4(net.client, 40000, net.local[0], BACKEND, hops=1)
    play(bench, Case("last hop", given, sent, Verdict.PASS, wanted))


def test_inside_the_source_ranges(bench: Bench, net: Net, l4: Make) -> None:
    """Who is allowed comes in."""
    near = "198.51.100.8/29" if net is V4 else "2001:db8:51::/64"
    given = (offered(net, l4, net.here, ranges=(near,)),)
    sent = l4(net.client, 40000, net.vip, 80)
    wanted = l4(net.client, 40000, net.local[0], BACKEND)
    play(bench, Case("inside", given, sent, Verdict.PASS, wanted))


@pytest.mark.parametrize("kind", ["external", "node port"])
def test_source_ranges_guard_load_balancer_addresses_only(
    bench: Bench, net: Net, l4: Make, kind: str
) -> None:
    """Any other frontend of the service stays open."""
    near = "198.51.100.0/29" if net is V4 else "2001:db8:51::/125"
    given = (offered(net, l4, net.here, kind=kind, ranges=(near,)),)
    sent = l4(net.client, 40000, net.address_of(kind), 80)
    wanted = l4(net.client, 40000, net.local[0], BACKEND)
    play(bench, Case(kind, given, sent, Verdict.PASS, wanted))


def test_local_policy_keeps_to_this_node(bench: Bench, net: Net, l4: Make) -> None:
    """With one backend of each kind, only the one of this node is chosen."""
    bench.give(offered(net, l4, net.here, net.there, local=True))
    wanted = l4(net.client, 40000, net.local[0], BACKEND)
    for number in range(64):
        sent = l4(net.client, 40000 + number, net.vip, 80)
        wanted = l4(net.client, 40000 + number, net.local[0], BACKEND)
        play(bench, Case(str(number), None, sent, Verdict.PASS, wanted))


def test_no_port_is_left(bench: Bench, net: Net, l4: Make) -> None:
    """Connections to one backend beyond the node's ports are dropped, and all before them live.

    While nobody has taken those up, a new one gets the port of one of them.
    """
    bench.give(offered(net, l4, net.there))
    first = l4(net.client, 1, net.vip, 80)
    start = len(bytes(first)) - len(bytes(first.lastlayer().underlayer))

    def forth(flags: str, numbers: range) -> list[Ran]:
        sent = bytearray(bytes(l4(net.client, 1, net.vip, 80, flags=flags)))
        frames = []
        for number in numbers:
            sent[start : start + 2] = number.to_bytes(2, "big")
            frames.append(bytes(sent))
        return bench.run_all("lb_in", frames)

    before = bench.counted().get(Reason.NO_PORT, 0)
    every = range(1, len(PORTS) + 1)
    begun = forth("S", every)
    begun += forth("S", range(20_000, 20_100))
    assert {one.verdict for one in begun} == {Verdict.SEND}
    back = bytearray(bytes(answer(Ether(begun[0].packet))))
    for port in PORTS:
        back[start + 2 : start + 4] = port.to_bytes(2, "big")
        bench.run("lb_in", bytes(back))
    forth("A", every)
    live = taken_up(bench)
    late = forth("S", range(40_000, 40_200))
    dropped = sum(one.verdict == Verdict.DROP for one in late)
    assert dropped >= 1
    assert bench.counted()[Reason.NO_PORT] - before >= dropped
    assert taken_up(bench) == live


def taken_up(bench: Bench) -> set[tuple[bytes, int, int]]:
    """The connections that both ends want, by their ends and their port of this node."""
    return {
        (flow.client, flow.client_port, flow.port)
        for flow in bench.flows()
        if flow.state == FlowState.ESTABLISHED
    }
