"""Rows of `show` from tables in memory, and the words of `status` and `show`."""

from __future__ import annotations

import struct
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from bpf.layout import AddressFlag, Affinity, AffinityKey, ClientKind, Load, NodeAddress
from bpf.maps import MemoryHash
from lb import looking, show
from lb.address import Family, parse
from lb.reconcile import Reconciler
from lb.tables import Tables
from lb.words import flattened, status_text
from tests.unit.lb.faulty import watched
from tests.unit.lb.making import plans, service, slice_of

WEB = service("web", "10.96.0.10", "fd00:96::10", node_port=30080, affinity_seconds=60)


@pytest.fixture
def tables() -> Tables:
    """A dual-stack service with a node port, as an agent left it."""
    watch = watched()
    v6 = slice_of("web", "3 n1", which=Family.IPV6)
    made = plans(WEB, slice_of("web", "1 n1", "2 n2 draining"), v6)
    Reconciler(watch.tables, guard=lambda: None).step(made, 0.0)
    return watch.plain


def addresses(*accepting: str) -> MemoryHash:
    """A node's addresses, those that accept node ports and one that does not."""
    table = MemoryHash(16)
    flags = AddressFlag.LOCAL | AddressFlag.NODE_PORT
    table.put({parse(text): NodeAddress(flags).pack() for text in accepting})
    table.put({parse("192.0.2.99"): NodeAddress(AddressFlag.LOCAL).pack()})
    return table


def test_services_join_their_families(tables: Tables) -> None:
    """One row, a frontend of each family, a node port at each address that accepts it."""
    (row,) = show.services(tables, addresses("192.0.2.1", "2001:db8::1"))
    assert row["frontends"] == [
        {"type": "ClusterIP", "address": "10.96.0.10", "port": 80},
        {"type": "NodePort", "address": "192.0.2.1", "port": 30080},
        {"type": "ClusterIP", "address": "fd00:96::10", "port": 80},
        {"type": "NodePort", "address": "2001:db8::1", "port": 30080},
    ]
    assert row["backends"][0] == {
        "address": "10.0.0.1", "port": 8080, "state": "ready", "weight": 1,
        "node": "n1", "zone": "zone-of-n1", "connections": 0, "connections_total": 0,
        "packets": 0, "bytes": 0,
    }  # fmt: skip
    assert [one["state"] for one in row["backends"]] == ["ready", "terminating", "ready"]
    assert (row["namespace"], row["name"], row["port_name"]) == ("default", "web", "")
    assert (row["protocol"], row["state"]) == ("TCP", "applied")


def test_failing_services_are_listed_with_their_error(tables: Tables) -> None:
    """Those in the maps and those that never got there."""
    failing = [
        {"namespace": "default", "name": name, "port_name": "", "protocol": "TCP", "error": "full"}
        for name in ("web", "new")
    ]
    rows = {row["name"]: row for row in show.services(tables, None, failing)}
    assert {row["state"] for row in rows.values()} == {"failing"}
    assert {row["error"] for row in rows.values()} == {"full"}
    assert rows["web"]["backends"]
    assert rows["new"]["backends"] == []


def test_backends_count_their_connections(tables: Tables) -> None:
    """Open is opened less closed, and never below nothing."""
    tables.loads.write(1, Load(5, 2, 0, 0, 0).pack())
    tables.loads.write(2, Load(1, 2, 0, 0, 0).pack())
    rows = {row["id"]: row for row in show.backends(tables)}
    assert [rows[1][name] for name in ("connections", "connections_total")] == [3, 5]
    assert rows[2]["connections"] == 0
    assert [rows[n]["takes_new_connections"] for n in (1, 2, 3)] == [True, False, True]


def test_affinity_shows_who_is_remembered(tables: Tables) -> None:
    """Rows in force only: neither time, epoch nor backend is gone, and the backend is its own."""
    rows = show.backends(tables)
    service_of = {row["address"]: 1 if ":" not in row["address"] else 2 for row in rows}
    epoch = tables.services.read(1)[28]
    now = time.monotonic_ns()
    table = MemoryHash(16)

    def remember(
        client: int, where: int, backend: int, *, epoch: int = epoch, age: int = 0
    ) -> None:
        raw = bytes(8) + struct.pack("<II", client >> 32, client & 0xFFFFFFFF)
        key = AffinityKey(raw, where, ClientKind.NETNS)
        memory = Affinity(now - age * 10**9, backend, 1, epoch)
        table.put({key.pack(): memory.pack()})

    remember(7, 1, 1)
    remember(8, 1, 1, age=61)
    remember(9, 1, 1, epoch=epoch + 1)
    remember(10, 1, 99)
    remember(11, 99, 1)
    remember(13, service_of["fd00::3"], 1)
    remember(12, service_of["fd00::3"], 3)
    found = show.affinity(tables, table)
    assert [(row["client"], row["backend"]) for row in found] == [
        ("netns:12", "[fd00::3]:8080"),
        ("netns:7", "10.0.0.1:8080"),
    ]
    assert found[0]["seconds_left"] == pytest.approx(60, abs=1)


def test_flattened_services_read_well(tables: Tables) -> None:
    """One line a service; IPv6 in brackets; what is not ready says so."""
    (row,) = flattened("services", show.services(tables, None))
    assert row["service"] == "default/web/TCP"
    assert row["frontend"] == ["10.96.0.10:80", "[fd00:96::10]:80"]
    assert row["backend"] == ["10.0.0.1:8080", "10.0.0.2:8080 terminating", "[fd00::3]:8080"]


def test_flattened_errors_stand_beside_the_state() -> None:
    """A failing service says why."""
    row = {
        "namespace": "d", "name": "w", "port_name": "http", "protocol": "UDP",
        "frontends": [], "backends": [], "state": "failing", "error": "full",
    }  # fmt: skip
    (flat,) = flattened("services", [row])
    assert (flat["service"], flat["state"]) == ("d/w:http/UDP", "failing: full")


STATUS = {
    "node": "n1", "zone": "", "healthy": True, "error": "",
    "source": {"kind": "manifests", "location": "/m", "synced": True, "error": ""},
    "services": 3, "backends": 7,
    "features": {"socket-lb": {"state": "on"}, "xdp": {"state": "off", "reason": "not yet"}},
    "failing": [], "refused": [],
}  # fmt: skip


def test_a_good_status_is_short() -> None:
    """Node, state, source, counts, features."""
    assert status_text(STATUS).splitlines() == [
        "node      n1",
        "state     healthy",
        "source    manifests /m, synced",
        "serving   3 services, 7 backends",
        "socket-lb on",
        "xdp       off: not yet",
    ]


def test_what_is_wrong_comes_last_and_whole() -> None:
    """Errors, failing services and refused objects, a line each."""
    failing = {"namespace": "d", "name": "w", "port_name": "", "protocol": "TCP", "error": "full"}
    bad = STATUS | {
        "zone": "a", "healthy": False, "error": "addresses: no", "failing": [failing],
        "source": {"kind": "kubernetes", "location": "u", "synced": False, "error": "down"},
        "refused": [{"subject": "Service d/x", "reason": "why"}],
    }  # fmt: skip
    lines = status_text(bad).splitlines()
    assert lines[:3] == [
        "node      n1 in zone a",
        "state     not as it should be",
        "source    kubernetes u, waiting for its first full state",
    ]
    assert lines[-4:] == [
        "error     down",
        "error     addresses: no",
        "failing   d/w/TCP: full",
        "refused   Service d/x: why",
    ]


def test_cleanup_keeps_away_from_what_is_no_bpffs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder named by mistake keeps all that is in it; the device part is for `tests/net`."""
    monkeypatch.setattr(looking, "_off_devices", lambda _: ["filters of eth0"])
    monkeypatch.setattr(looking, "alone_on_devices", nullcontext)
    monkeypatch.setattr(looking, "is_reserved", lambda: False)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "treasure").write_text("gold")
    assert looking.clean(tmp_path) == ["filters of eth0"]
    assert (tmp_path / "maps" / "treasure").read_text() == "gold"
