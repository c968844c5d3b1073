"""Connections that began before us: the kernel's connection tracking goes on with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bpf.layout import Ends, Tracked
from lb.address import parse
from lb.model import Way
from tests.packet.bench import Bench
from tests.packet.case import Case, Verdict, judged, play
from tests.packet.net import Net, offered
from tests.packet.packets import tcp

WAYS = pytest.mark.parametrize("way", list(Way))
HERS, ANOTHERS = 40000, 40001
"""Ports of a client."""


@pytest.fixture
def tracked(bench: Bench, net: Net) -> Iterator[None]:
    """One connection is connection tracking's."""
    table = bench.pins.open_hash("tracked")
    key = Ends(parse(net.client), parse(net.vip), HERS, 80).pack()
    table.put({key: Tracked(0).pack()})
    yield
    table.remove([key])


@WAYS
@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "FPA"])
@pytest.mark.parametrize("program", ["lb_in", "lb_xdp"])
def test_it_is_left_alone(  # noqa: PLR0917 - fixtures and columns
    bench: Bench, net: Net, tracked: None, way: Way, flags: str, program: str
) -> None:
    """In its midst and at its end, not one byte is changed."""
    assert tracked is None
    given = offered(net, tcp, net.there, forwarding=way)
    sent = tcp(net.client, HERS, net.vip, 80, flags=flags)
    play(bench, Case("hers", (given,), sent, program=program))


@WAYS
def test_others_are_ours(bench: Bench, net: Net, tracked: None, way: Way) -> None:
    """Another one of the same client in its midst, and a new one from the same port."""
    assert tracked is None
    bench.give(offered(net, tcp, net.there, forwarding=way))
    for port, flags in ((ANOTHERS, "A"), (HERS, "S"), (HERS, "A")):
        ran = bench.run("lb_in", bytes(tcp(net.client, port, net.vip, 80, flags=flags)))
        assert judged("lb_in", ran.verdict) == Verdict.SEND, (port, flags)
