"""The node's own state in the loop: addresses, pods, cluster IPs, what is switched off."""

from __future__ import annotations

import logging

import msgspec
import pytest

from bpf.layout import AddressFlag, FrontendFlag, NodeAddress
from lb.address import parse, parse_prefix
from lb.local import Detection, Mode
from lb.model import ALL_NODES, Change, Key, Kind, Node, Way
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import WEB, Bench


def test_cluster_ips_stand_beside_the_nodes_own() -> None:
    """They come with their service and go with it; the node's own are untouched."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1"))
    bench.sync()

    def cluster_ips() -> set[bytes]:
        flags = {key: NodeAddress.unpack(value).flags for key, value in bench.table.items()}
        return {key for key, found in flags.items() if found & AddressFlag.CLUSTER_IP}

    assert cluster_ips() == {parse("10.96.0.10")}
    bench.apply(service("web", "10.96.0.11", "fd00::11"))
    assert cluster_ips() == {parse("10.96.0.11"), parse("fd00::11")}
    bench.controller.changed([Change(Key(Kind.SERVICE, *WEB.name), None)])
    bench.controller.turn(0.0)
    assert cluster_ips() == set()


@pytest.mark.parametrize(
    ("told", "bind", "node", "wanted"),
    [
        ((), "", ("192.0.2.8", "2001:db8::8"), ("192.0.2.8", "2001:db8::8")),
        ((), "", ("192.0.2.8", "192.0.2.9"), ("192.0.2.8",)),
        ((), "", (), ("192.0.2.1",)),
        ((), "192.0.2.5", ("192.0.2.8", "2001:db8::8"), ("192.0.2.5", "2001:db8::8")),
        ((), "2001:db8::5", ("192.0.2.8", "2001:db8::8"), ("2001:db8::5", "192.0.2.8")),
        ((), "192.0.2.5", (), ("192.0.2.5",)),
        (("192.0.2.7",), "192.0.2.5", ("192.0.2.8", "2001:db8::8"), ("192.0.2.7",)),
    ],
)
def test_which_addresses_are_the_nodes_own(
    told: tuple[str, ...], bind: str, node: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    """As told; else the bind address in its family; else the Node object; else the device."""
    bench = Bench()
    bench.controller.settings = msgspec.structs.replace(
        bench.controller.settings,
        node_ips=tuple(map(parse, told)),
        bind_address=parse(bind) if bind else None,
    )
    bench.apply(Node("n1", "", tuple(map(parse, node))))
    bench.sync()
    assert bench.controller.here.addresses == tuple(map(parse, wanted))


def test_a_node_that_moves(caplog: pytest.LogCaptureFixture) -> None:
    """A new address of the Node object counts at once, with a line in the log."""
    bench = Bench()
    bench.held.append((parse("192.0.2.9"), "eth1"))
    bench.apply(Node("n1", "", (parse("192.0.2.1"),)))
    bench.sync()
    assert bench.accepting() == {parse("192.0.2.1")}
    with caplog.at_level(logging.INFO):
        bench.apply(Node("n1", "", (parse("192.0.2.9"),)))
        bench.apply(Node("n1", "b", (parse("192.0.2.9"),)))
    assert bench.accepting() == {parse("192.0.2.9")}
    assert caplog.messages == ["this node's addresses are 192.0.2.9"]


def test_pod_ranges_follow_the_node(caplog: pytest.LogCaptureFixture) -> None:
    """In mode NodeCIDR ranges that come late, or change, count at once; and without is said."""
    bench = Bench()
    bench.controller.settings = msgspec.structs.replace(
        bench.controller.settings, detection=Detection(Mode.NODE_CIDR)
    )
    bench.apply(Node("n1"))
    bench.sync()
    source = parse("10.244.1.5")
    assert not bench.controller.pods.is_pod(source, "eth0")
    assert "detectLocalMode NodeCIDR: the Node object has no podCIDR yet" in caplog.messages
    bench.apply(Node("n1", pod_cidrs=(parse_prefix("10.244.1.0/24"),)))
    assert bench.controller.pods.is_pod(source, "eth0")
    bench.apply(Node("n1", pod_cidrs=(parse_prefix("10.244.2.0/24"),)))
    assert not bench.controller.pods.is_pod(source, "eth0")


def test_primary_without_an_address_accepts_nothing() -> None:
    """No address of a family is known: node ports are closed there, and not open everywhere."""
    bench = Bench()
    bench.controller.devices([(parse("2001:db8::1"), "eth0"), (parse("192.0.2.1"), "eth0")], [])
    bench.apply(Node("n1", "", (parse("192.0.2.1"),)))
    bench.sync()
    assert bench.accepting() == {parse("192.0.2.1")}


def test_external_ips_can_be_switched_off() -> None:
    """Without the feature gate they are as if nobody had asked."""
    bench = Bench()
    external = service("web", "10.96.0.10", external_ips=(parse("203.0.113.1"),))
    bench.apply(external, slice_of("web", "1"))
    bench.sync()
    assert len(bench.controller.plans(WEB.name)[0].frontends) == 2
    bench.controller.settings = msgspec.structs.replace(
        bench.controller.settings, external_ips=False
    )
    assert len(bench.controller.plans(WEB.name)[0].frontends) == 1


def test_direct_answers_wait_for_all_nodes() -> None:
    """With an API server, services go by SNAT until it said that all nodes are known; once."""
    bench = Bench()
    bench.controller.settings = msgspec.structs.replace(bench.controller.settings, manifests=None)
    bench.apply(msgspec.structs.replace(WEB, forwarding=Way.DSR))
    bench.sync()

    def ways() -> set[bool]:
        (plan,) = bench.controller.plans(WEB.name)
        return {bool(one.flags & FrontendFlag.DSR) for one in plan.frontends}

    assert ways() == {False}
    for writes in (True, False):
        before = bench.controller.writes
        bench.controller.changed([ALL_NODES])
        bench.controller.turn(0.0)
        assert ways() == {True}
        assert (bench.controller.writes > before) is writes
