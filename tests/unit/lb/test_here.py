"""The tables of addresses: what each address is, over changes, failures and restarts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import AddressFlag, NodeAddress
from bpf.maps import MemoryHash
from lb.address import Address, Prefix, parse, parse_prefix
from lb.config import Settings
from lb.here import Addresses, ServiceRanges
from lb.model import ServiceName

SETTINGS = Settings(node_name="n1", cgroup=Path(), bpffs=Path(), api_socket=Path())
NODE, VIP, VIP6 = parse("192.0.2.1"), parse("10.96.0.1"), parse("fd00::1")
WEB, DNS = ServiceName("default", "web"), ServiceName("default", "dns")
OWN = AddressFlag.LOCAL | AddressFlag.NODE_PORT


class Refusing(MemoryHash):
    """A table that refuses every change while `full`."""

    full = False

    def put(self, entries: object) -> None:
        """Raises OSError while full."""
        if self.full:
            raise OSError(7, "full")
        super().put(entries)  # type: ignore[arg-type]


def flags(table: MemoryHash) -> dict[Address, int]:
    """What the table says."""
    return {Address(key): NodeAddress.unpack(one).flags for key, one in table.items()}


def test_cluster_ips_come_and_go() -> None:
    """Each service's addresses stand beside the node's own, in both families."""
    table = MemoryHash(16)
    addresses = Addresses(table, SETTINGS)
    assert addresses.update([NODE], [NODE])
    assert addresses.serve({WEB: [VIP, VIP6]})
    assert flags(table) == {NODE: OWN, VIP: AddressFlag.CLUSTER_IP, VIP6: AddressFlag.CLUSTER_IP}
    assert not addresses.serve({WEB: [VIP6, VIP]})
    assert addresses.serve({WEB: [VIP]})
    assert addresses.serve({WEB: []})
    assert flags(table) == {NODE: OWN}
    assert addresses.local.keys() == {NODE}


def test_an_address_may_be_several_things() -> None:
    """A cluster IP that the node holds, too, or that two services claim, goes part by part."""
    table = MemoryHash(16)
    addresses = Addresses(table, SETTINGS)
    addresses.update([VIP], [])
    addresses.serve({WEB: [VIP], DNS: [VIP]})
    assert flags(table) == {VIP: OWN | AddressFlag.CLUSTER_IP}
    addresses.serve({WEB: []})
    addresses.update([], [])
    assert flags(table) == {VIP: AddressFlag.CLUSTER_IP}
    addresses.serve({DNS: []})
    assert flags(table) == {}


def test_a_restart_takes_nothing_away_too_soon() -> None:
    """Cluster IPs of an agent before stay until all services are known; then strays go."""
    table = MemoryHash(16)
    before = Addresses(table, SETTINGS)
    before.update([NODE], [NODE])
    before.serve({WEB: [VIP], DNS: [VIP6]})
    after = Addresses(table, SETTINGS)
    assert not after.update([NODE], [NODE])
    assert not after.serve({WEB: [VIP]})
    assert after.complete()
    assert flags(table) == {NODE: OWN, VIP: AddressFlag.CLUSTER_IP}


def test_what_is_refused_stays_due() -> None:
    """A full table is an error now, and right as soon as it has room."""
    table = Refusing(16)
    addresses = Addresses(table, SETTINGS)
    table.full = True
    with pytest.raises(OSError, match="full"):
        addresses.serve({WEB: [VIP]})
    table.full = False
    assert addresses.update([NODE], [NODE])
    assert flags(table) == {NODE: OWN, VIP: AddressFlag.CLUSTER_IP}


IPS = st.sets(st.sampled_from([NODE, VIP, VIP6, parse("10.96.0.2")]))


@given(st.lists(st.tuples(st.sampled_from([WEB, DNS]), IPS, IPS)), st.data())
def test_the_table_is_a_function_of_the_present(
    steps: list[tuple[ServiceName, set[Address], set[Address]]], data: st.DataObject
) -> None:
    """Whatever happened before, agents that came and went among it, only what is now counts."""
    table = MemoryHash(16)
    addresses = Addresses(table, SETTINGS)
    services: dict[ServiceName, set[Address]] = {}
    held: set[Address] = set()
    for name, own, held in steps:
        services[name] = own
        addresses.update(held, [])
        addresses.serve({name: own})
        if data.draw(st.booleans()):
            addresses = Addresses(table, SETTINGS)
            addresses.update(held, [])
            addresses.serve(services)
            addresses.complete()
    wanted = dict.fromkeys(held, int(OWN))
    for one in set().union(*services.values()):
        wanted[one] = wanted.get(one, 0) | AddressFlag.CLUSTER_IP
    assert flags(table) == wanted


def prefixes(*texts: str) -> list[Prefix]:
    """Of texts."""
    return [parse_prefix(text) for text in texts]


def test_ranges_follow() -> None:
    """Prefixes come and go, an agent after a restart knows those of the one before."""
    table = MemoryHash(16)
    ranges = ServiceRanges(table)
    assert ranges.update(prefixes("10.96.0.0/16", "fd00::/112"))
    assert not ranges.update(prefixes("fd00::/112", "10.96.0.0/16"))
    after = ServiceRanges(table)
    assert not after.update(prefixes("10.96.0.0/16", "fd00::/112"))
    assert after.update(prefixes("10.96.0.0/16"))
    assert _lengths(table) == [96 + 16]
    assert after.update([])
    assert _lengths(table) == []


def _lengths(table: MemoryHash) -> Iterable[int]:
    return [int.from_bytes(key[:4], "little") for key, _ in table.items()]
