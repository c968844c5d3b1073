"""Which devices are served, and how status tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import AddressFlag, Node, NodeAddress
from bpf.maps import MemoryArray, MemoryHash
from bpf.netlink import Held
from lb import tunnels
from lb.address import Family, parse
from lb.config import Settings
from lb.devices import Choice, choose, feature, not_forwarding
from lb.here import Addresses, Identity
from lb.tunnels import Tunnel

NAMES = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4)
BOTH = (Family.IPV4, Family.IPV6)


@pytest.mark.parametrize(
    ("named", "default", "present", "carrying", "choice"),
    [
        ((), ["eth0"], ["lo", "eth0"], [], Choice(("eth0",))),
        ((), [], ["lo", "eth0"], ["eth0"], Choice(("eth0",))),
        ((), ["eth0"], ["lo"], [], Choice(())),
        (("eth1",), ["eth0"], ["eth0", "eth1"], [], Choice(("eth1",))),
        (("eth1",), ["eth0"], ["eth0"], [], Choice((), ("eth1",))),
        (("eth1",), [], ["eth0", "eth1"], ["eth0"], Choice(("eth1",), (), ("eth0",))),
    ],
)
def test_choice(
    named: tuple[str, ...],
    default: list[str],
    present: list[str],
    carrying: list[str],
    choice: Choice,
) -> None:
    """Those named, else those with a default route; what has the programs by chance goes."""
    assert choose(named, default, present, carrying) == choice


@given(NAMES, NAMES, NAMES, NAMES)
def test_choice_is_sound(
    named: list[str], default: list[str], present: list[str], carrying: list[str]
) -> None:
    """Served are only devices that are there, once each; named ones are served or missing."""
    choice = choose(named, default, present, carrying)
    assert set(choice.serve) <= set(present)
    assert len(set(choice.serve)) == len(choice.serve)
    assert not set(choice.leave) & {*choice.serve, *choice.missing}
    if named:
        assert {*choice.serve, *choice.missing} == set(named)


@pytest.mark.parametrize(
    ("serving", "faults", "notes", "state", "reason"),
    [
        (["eth0"], [], [], "on", None),
        (["eth0"], ["eth1 is missing"], [], "degraded", "eth1 is missing"),
        (["eth0"], [], ["no forwarding"], "on", "no forwarding"),
        ([], [], [], "off", "no device has a default route: name some with --devices"),
        ([], ["a"], ["b"], "degraded", "a; b"),
    ],
)
def test_feature(
    serving: list[str], faults: list[str], notes: list[str], state: str, reason: str | None
) -> None:
    """Faults of devices degrade, notes do not; each is told."""
    answer = feature(serving, faults, notes=notes)
    assert (answer["state"], answer.get("reason")) == (state, reason)
    assert answer["devices"] == dict.fromkeys(serving, "tc")


def test_forwarding(tmp_path: Path) -> None:
    """Only what is 0, and of the families that the node has."""
    for path, value in (("ipv4/ip_forward", "0"), ("ipv6/conf/eth0/forwarding", "0")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"{value}\n")
    both = not_forwarding(["eth0", "eth1"], BOTH, tmp_path)
    assert [line.split(" is ")[0] for line in both] == [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.eth0.forwarding",
    ]
    assert not_forwarding(["eth0"], [Family.IPV4], tmp_path) == both[:1]
    (tmp_path / "ipv4/ip_forward").write_text("1\n")
    assert not_forwarding(["eth0"], [Family.IPV4], tmp_path) == []


def test_identity_follows_the_addresses() -> None:
    """One address of each family, zeros where there is none; gone when it goes."""
    table = MemoryArray(1, Node.SIZE)
    identity = Identity(table, 7)
    four, six = parse("192.0.2.1"), parse("2001:db8::1")
    for primary in ((), (four,), (four, six), (six,)):
        identity.update(primary, range(30000, 32768))
        v4 = bytes(four) if four in primary else bytes(16)
        v6 = bytes(six) if six in primary else bytes(16)
        none = (bytes(16), bytes(16), 0, 0)
        assert Node.unpack(table.read(0)) == Node(7, v4, v6, 30000, 32767, *none)


def test_identity_knows_the_tunnels() -> None:
    """Of each family; told before the first addresses, they are written with them."""
    table = MemoryArray(1, Node.SIZE)
    identity = Identity(table, 7)
    four, six = parse("10.244.1.0"), parse("fd00:10:244:1::")
    identity.reach({Family.IPV4: Tunnel("flannel.1", 5, four)})
    assert not any(table.read(0))
    identity.update((), range(30000, 32768))
    for reached in ({Family.IPV4: Tunnel("a", 5, four)}, {Family.IPV6: Tunnel("b", 6, six)}, {}):
        identity.reach(reached)
        found = Node.unpack(table.read(0))
        v4, v6 = reached.get(Family.IPV4), reached.get(Family.IPV6)
        assert (found.tunnel_v4, found.device_v4) == ((four, 5) if v4 else (bytes(16), 0))
        assert (found.tunnel_v6, found.device_v6) == ((six, 6) if v6 else (bytes(16), 0))


TUNNELS = [
    # addresses by device, tunnels; who is taken for IPv4, for IPv6
    ([("eth0", "192.0.2.1")], {}, None, None),
    ([("eth0", "192.0.2.1"), ("flannel.1", "10.244.1.0")], {"flannel.1": 5}, "flannel.1", None),
    ([("b", "10.1.0.0"), ("a", "10.2.0.0")], {"a": 1, "b": 2}, "a", None),
    ([("a", "fe80::1"), ("a", "169.254.1.1")], {"a": 1}, None, None),
    ([("a", "10.1.0.0"), ("b", "fd00::1")], {"a": 1, "b": 2}, "a", "b"),
]


@pytest.mark.parametrize(("held", "devices", "four", "six"), TUNNELS)
def test_the_tunnel_of_each_family(
    held: list[tuple[str, str]], devices: dict[str, int], four: str | None, six: str | None
) -> None:
    """The first by name that has an address; link-local ones do not count."""
    found = tunnels.choose(devices, [Held(parse(at), name) for name, at in held])
    assert {which: one.device for which, one in found.items()} == {
        which: name for which, name in ((Family.IPV4, four), (Family.IPV6, six)) if name is not None
    }
    assert all(one.number == devices[one.device] for one in found.values())


def test_tunnels_are_served_whatever_is_named() -> None:
    """Answers come back by them."""
    assert Choice(("eth0",), (), ("t", "x")).reaching({"t"}) == Choice(("eth0", "t"), (), ("x",))
    assert Choice(("t",)).reaching({"t"}) == Choice(("t",))


def test_peers_stand_beside_the_own_addresses() -> None:
    """They may hand packets over, and accept no node ports here; an own address stays one."""
    table = MemoryHash(16)
    settings = Settings(node_name="n1", cgroup=Path(), bpffs=Path(), api_socket=Path())
    addresses = Addresses(table, settings)
    own, other = parse("192.0.2.1"), parse("192.0.2.2")
    assert addresses.update([own], [own], [own, other])
    flags = {key: NodeAddress.unpack(value).flags for key, value in table.items()}
    assert flags[bytes(other)] == AddressFlag.PEER
    assert flags[bytes(own)] & AddressFlag.LOCAL
    assert not flags[bytes(own)] & AddressFlag.PEER
    assert not addresses.update([own], [own], [other])
    assert addresses.update([own], [own])
    assert bytes(other) not in dict(table.items())
