"""ICMP errors about connections whose answers go past the balancer reach whom they are about."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.layout import Reason
from lb.model import Dispatch, Way
from tests.packet.bench import NODE_MAC, ROUTER_MAC, Bench
from tests.packet.case import Case, Verdict, play
from tests.packet.errors import error
from tests.packet.given import Given
from tests.packet.net import BACKEND, V4, Net, offered
from tests.packet.packets import Make, answer, network
from tests.packet.sums import LINK, wrong
from tests.packet.test_dsr import _fresh, own, peer, sent, wrapped
from tests.packet.test_errors import FEWEST, KINDS, ROUTER, TOO_BIG, quote_of

DISPATCH = pytest.mark.parametrize("how", Dispatch)


def there(net: Net, l4: Make, how: Dispatch, *more: str) -> Given:
    """A service whose backend is on n2."""
    return offered(net, l4, net.there, *more, forwarding=Way.DSR, dispatch=how)


def growth(net: Net, how: Dispatch) -> int:
    """Octets by which a packet is longer on the way to the backend's node."""
    if how is Dispatch.IPIP:
        return 20 if net is V4 else 40
    return 12 if net is V4 else 40


def handed(bench: Bench, net: Net, l4: Make, how: Dispatch, *, hops: int = 64) -> bytes:
    """A packet as it goes to the backend's node."""
    bench.give(there(net, l4, how))
    return bench.run("lb_in", bytes(sent(net, l4, hops=hops))).packet


@DISPATCH
def test_about_what_was_handed_over(bench: Bench, net: Net, l4: Make, how: Dispatch) -> None:
    """To the client, from the service, about the client's own packet."""
    went = handed(bench, net, l4, how)
    for words in KINDS[net]:
        got = bench.run("lb_in", bytes(error(went, ROUTER[net], own(net), words, mtu=1400)))
        assert got.verdict == Verdict.SEND
        assert wrong(got.packet) == []
        packet = Ether(got.packet)
        assert (network(packet).src, network(packet).dst) == (net.vip, net.client)
        icmp = bytes(network(packet).payload)
        is_big = words == TOO_BIG[net]
        mtu = 1400 - growth(net, how) if is_big else 1400
        assert (tuple(icmp[:2]), int.from_bytes(icmp[4:8])) == (words, mtu)
        assert quote_of(net, got.packet) == bytes(network(sent(net, l4, hops=63)))


@DISPATCH
def test_quotes_cut_short(bench: Bench, net: Net, l4: Make, how: Dispatch) -> None:
    """8 octets of L4 are enough; with less of the client's packet the host may have it.

    Half a checksum at the end of a quote stays as it was.
    """
    went = handed(bench, net, l4, how)
    least = FEWEST[net] + growth(net, how)
    whole = bytes(network(sent(net, l4, hops=63)))
    for quoted in range(FEWEST[net] - 8, len(went) - LINK + 1):
        packet = bytes(error(went, ROUTER[net], own(net), TOO_BIG[net], quoted=quoted, mtu=1400))
        got = bench.run("lb_in", packet)
        if quoted < least:
            assert (got.verdict, got.packet) == (Verdict.PASS, packet)
            continue
        assert got.verdict == Verdict.SEND
        assert wrong(got.packet) == []
        quote, wanted = quote_of(net, got.packet), whole[: quoted - growth(net, how)]
        if len(quote) == FEWEST[net] + 9:
            quote, wanted = quote[:-1], wanted[:-1]
        assert quote == wanted


@DISPATCH
def test_of_a_connection_that_is_not_known(bench: Bench, net: Net, l4: Make, how: Dispatch) -> None:
    """What quotes a packet that this node never sent is the host's business."""
    went = handed(bench, net, l4, how)
    bench.forget()
    packet = error(went, ROUTER[net], own(net), TOO_BIG[net], mtu=1400)
    play(bench, Case("forgotten", None, packet))
    bench.give(offered(net, l4, net.there))
    play(bench, Case("by SNAT now", None, packet))


@DISPATCH
def test_a_tunnel_of_the_host_s(bench: Bench, net: Net, l4: Make, how: Dispatch) -> None:
    """Errors about it pass as they came."""
    given = (there(net, l4, how),)
    inner = l4(net.client, 40000, net.neighbour, 80)
    went = bytes(wrapped(net, inner, own(net)))
    play(bench, Case("tunnel", given, error(went, ROUTER[net], own(net), TOO_BIG[net], mtu=1400)))


def direct(net: Net, l4: Make) -> bytes:
    """An answer as it goes from the backend's node to the client."""
    return bytes(answer(sent(net, l4)))


@pytest.mark.parametrize("known", [True, False])
def test_about_an_answer_wrapped(bench: Bench, net: Net, l4: Make, *, known: bool) -> None:
    """As it came, to the backend's node, whether the flow is remembered or not."""
    other = f"{net.at(net.remote[1], BACKEND)} n2"
    bench.give(there(net, l4, Dispatch.IPIP, other))
    went = Ether(bench.run("lb_in", bytes(sent(net, l4))).packet)
    if not known:
        bench.forget()
    for words in KINDS[net]:
        packet = error(direct(net, l4), ROUTER[net], net.vip, words, mtu=1300)
        got = Ether(bench.run("lb_in", bytes(packet)).packet)
        assert (network(got).src, network(got).dst) == (own(net), network(went).dst)
        hops = error(direct(net, l4), ROUTER[net], net.vip, words, mtu=1300, hops=63)
        assert bytes(network(got).payload) == bytes(network(hops))


@pytest.mark.parametrize("known", [True, False])
def test_about_an_answer_marked(bench: Bench, net: Net, l4: Make, *, known: bool) -> None:
    """From this node to the backend, about what that one sent."""
    other = f"{net.at(net.remote[1], BACKEND)} n2"
    bench.give(there(net, l4, Dispatch.OPT, other))
    backend = network(Ether(bench.run("lb_in", bytes(sent(net, l4))).packet)).dst
    if not known:
        bench.forget()
    for words in KINDS[net]:
        packet = error(direct(net, l4), ROUTER[net], net.vip, words, mtu=1300)
        got = bench.run("lb_in", bytes(packet))
        assert got.verdict == Verdict.SEND
        assert wrong(got.packet) == []
        layer = network(Ether(got.packet))
        assert (layer.src, layer.dst) == (own(net), backend)
        wanted = bytes(network(answer(l4(net.client, 40000, backend, BACKEND))))
        assert quote_of(net, got.packet) == wanted


@DISPATCH
def test_about_an_answer_of_no_service(bench: Bench, net: Net, l4: Make, how: Dispatch) -> None:
    """An error about somebody else's packet passes as it came."""
    about = bytes(l4(net.neighbour, 80, net.client, 40000))
    packet = error(about, ROUTER[net], net.neighbour, TOO_BIG[net], mtu=1300)
    play(bench, Case("other", (there(net, l4, how),), packet))


def came(net: Net, packet: Packet, source: str) -> Packet:
    """What another node wrapped for the pod of this one."""
    made = wrapped(net, packet, source)
    made[Ether].src, made[Ether].dst = ROUTER_MAC, NODE_MAC
    network(made).dst = net.local[0]
    return Ether(bytes(_fresh(made)))


def test_handed_to_the_backend(bench: Bench, net: Net, l4: Make) -> None:
    """A wrapped error about the pod's answer comes to it as an error about what it sent."""
    bench.give(offered(net, l4, net.here, forwarding=Way.DSR))
    bench.run("lb_in", bytes(came(net, sent(net, l4), peer(net))))
    packet = error(direct(net, l4), ROUTER[net], net.vip, TOO_BIG[net], mtu=1300)
    got = bench.run("lb_in", bytes(came(net, packet, peer(net))))
    assert got.verdict == Verdict.PASS
    assert wrong(got.packet) == []
    layer = network(Ether(got.packet))
    assert (layer.src, layer.dst) == (ROUTER[net], net.local[0])
    wanted = bytes(network(answer(l4(net.client, 40000, net.local[0], BACKEND))))
    assert quote_of(net, got.packet) == wanted


def test_handed_over_for_no_flow(bench: Bench, net: Net, l4: Make) -> None:
    """It goes no further: nodes do not pass errors round among themselves."""
    packet = error(direct(net, l4), ROUTER[net], net.vip, TOO_BIG[net], mtu=1300)
    given = (there(net, l4, Dispatch.IPIP),)
    case = Case(
        "no flow", given, came(net, packet, peer(net)), Verdict.DROP, None, {Reason.NOT_SERVED: 1}
    )
    play(bench, case)
