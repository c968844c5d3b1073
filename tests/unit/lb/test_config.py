"""Settings: what is taken, and one line about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.address import parse, parse_prefix
from lb.config import cgroup2_root, node_ips, node_name, ring_slots, table_sizes
from lb.errors import BadInput
from lb.model import Protocol, ServiceName, ServicePort
from lb.plan import Plan
from lb.reconcile import Reconciler
from lb.tables import FLAGS, SIZES, in_memory, room
from tests.unit.lb.making import numbered, plans, service, slice_of


@pytest.mark.parametrize(
    ("given", "host", "expected"),
    [("", "Node-1", "node-1"), ("N2", "x", "n2"), (" n3 ", "x", "n3"), ("a.b.c", "x", "a.b.c")],
)
def test_node_name(given: str, host: str, expected: str) -> None:
    """The flag, else the host's name; trimmed and in lower case."""
    assert node_name(given, host) == expected


@pytest.mark.parametrize("given", [" ", "a_b", "-a", "a/b", "a" * 254])
def test_bad_node_names(given: str) -> None:
    """What is no DNS subdomain is refused, by the flag's name."""
    with pytest.raises(BadInput, match="--hostname-override"):
        node_name(given, "host")


def test_node_ips() -> None:
    """None, one, or one of each family."""
    assert node_ips("") == ()
    assert node_ips("192.0.2.1, 2001:db8::1") == (parse("192.0.2.1"), parse("2001:db8::1"))


@pytest.mark.parametrize("text", ["192.0.2.1,192.0.2.2", "::1,::2", "x", "192.0.2.1,::1,::2"])
def test_bad_node_ips(text: str) -> None:
    """Two of one family, or no address."""
    with pytest.raises(BadInput):
        node_ips(text)


MOUNTS = "proc /proc proc rw 0 0\ncgroup2 {} cgroup2 rw,nosuid 0 0\nx /x tmpfs rw 0 0\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        (r"/mnt/a\040b", "/mnt/a b"),
        (r"/mnt/a\134b", r"/mnt/a\b"),
        ("/mnt/grün", "/mnt/grün"),
    ],
)
def test_cgroup2_is_found(text: str, path: str) -> None:
    """Wherever it is mounted, also below a name that the kernel has to escape."""
    assert cgroup2_root(MOUNTS.format(text)) == Path(path)


def test_no_cgroup2_is_said() -> None:
    """A machine without cgroup2 is told what to do."""
    with pytest.raises(BadInput, match="--cgroup"):
        cgroup2_root("cgroup /sys/fs/cgroup cgroup rw 0 0\n")


@pytest.mark.parametrize(
    ("count", "near"),
    [
        (16380, "16369 or 16381"),
        (16384, "16381 or 16411"),
        (250, "251"),
        (241, "251"),
        (-1, "251"),
        (131072, "131071"),
        (1 << 40, "131071"),
    ],
)
def test_a_bad_ring_size_is_answered_with_good_ones(count: int, near: str) -> None:
    """What is no prime, or too small or large, is refused in one line."""
    with pytest.raises(BadInput, match=f"--maglev-table-size: {count} .*; take {near}$"):
        ring_slots(count)


@pytest.mark.parametrize("count", [251, 1009, 16381, 65537, 131071])
def test_any_prime_in_between_is_a_ring_size(count: int) -> None:
    """Not only those that rings grow through."""
    assert ring_slots(count) == count


def test_table_sizes_follow() -> None:
    """Slots count in lines of 16, rings in pairs; loads follow backends, names services."""
    sizes = table_sizes({"services": 100, "slots": 100, "rings": 99, "backends": 50})
    fit = {name: room(name, length) for name, length in sizes.items()}
    assert (fit["slots"], fit["loads"], fit["names"]) == (7, 50, 100 + 32768)
    assert fit["rings"] == 50
    assert fit["frontends"] == SIZES["frontends"]


def test_sizes_by_default() -> None:
    """Without flags the room is the one that the flags name as their default."""
    assert {name: room(name, length) for name, length in table_sizes({}).items()} == SIZES


@pytest.mark.parametrize(
    "name", sorted(FLAGS.keys() - {"rings", "limits"})
)  # these fail no service
def test_what_a_flag_says_fits(name: str) -> None:
    """N of them and not one less; the next is refused with the flag and its number."""
    tables = in_memory(table_sizes(dict.fromkeys(FLAGS, 64) | {name: 16}))
    agent = Reconciler(tables, guard=lambda: None)
    agent.step(filling(name, 16), 0.0)
    assert agent.failing == {}
    agent.step(filling(name, 17), 10.0)
    assert agent.failing
    for failing in agent.failing.values():
        assert failing.error == f"map full: {name} holds 16 entries; raise {FLAGS[name]}"


def filling(name: str, count: int) -> dict[ServiceName, tuple[Plan, ...]]:
    """A service that needs so many entries of a table, or slots; of others fewer than 64."""
    fields: dict[str, object] = {}
    endpoints = numbered(range(1, count + 1)) if name in {"backends", "slots"} else []
    match name:
        case "services":
            fields["ports"] = tuple(ServicePort(str(n), Protocol.TCP, n + 1) for n in range(count))
        case "frontends":
            fields["external_ips"] = tuple(parse(f"198.51.100.{n}") for n in range(1, count))
        case "ranges":
            fields["load_balancer_ips"] = (parse("203.0.113.1"),)
            fields["source_ranges"] = tuple(parse_prefix(f"10.{n}.0.0/16") for n in range(count))
    return plans(service("web", "10.96.0.10", **fields), slice_of("web", *endpoints))


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("count", [15, (1 << 24) + 1])
def test_sizes_out_of_range_name_their_flag(name: str, count: int) -> None:
    """The error names the flag as the user wrote it."""
    with pytest.raises(BadInput, match=FLAGS[name]):
        table_sizes({name: count})
