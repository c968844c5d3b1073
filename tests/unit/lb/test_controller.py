"""The loop: nothing before the first full state, changes coalesce, failures are told once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bpf.layout import AddressFlag, NodeAddress
from bpf.maps import MemoryHash
from lb.address import Family, parse
from lb.config import Settings
from lb.controller import Controller
from lb.here import Addresses
from lb.model import Change, Endpoint, EndpointSlice, Key, Kind, Node, Service
from lb.reaper import Work
from lb.reconcile import Reconciler
from lb.sources import Report
from lb.status import differences, status
from tests.unit.lb.faulty import FaultyHash, Watch, watched
from tests.unit.lb.making import service, slice_of

WEB = service("web", "10.96.0.10", node_port=30080)


def changes(*objects: Service | EndpointSlice | Node) -> list[Change]:
    """Each object as a change."""
    kinds = {Service: Kind.SERVICE, EndpointSlice: Kind.SLICE, Node: Kind.NODE}
    return [
        Change(
            Key(kinds[type(one)], "", one.name)
            if isinstance(one, Node)
            else Key(kinds[type(one)], one.name.namespace, one.name.name),
            one,
        )
        for one in objects
    ]


class Bench:
    """A controller on watched tables, with what it gave to the reaper."""

    def __init__(self, watch: Watch | None = None, **asked: Any) -> None:
        self.watch = watch or watched()
        self.table = MemoryHash(16)
        told: dict[str, Any] = {
            "node_name": "n1", "proxy_mode": "nftables", "cgroup": Path("/c"),
            "bpffs": Path("/b"), "api_socket": Path("/s"), "manifests": Path("/m"),
        }  # fmt: skip
        settings = Settings(**told | asked)
        self.reconciler = Reconciler(self.watch.tables, guard=lambda: None)
        self.reconciler.adopt()
        addresses = Addresses(FaultyHash(self.watch, self.table), settings)
        self.work: list[Work] = []
        self.controller = Controller(settings, self.reconciler, addresses, self.work.append)
        self.held = [(parse("192.0.2.1"), "eth0"), (parse("127.0.0.1"), "lo")]
        self.controller.devices(self.held, ["eth0"])

    def apply(self, *objects: Service | EndpointSlice | Node, now: float = 0.0) -> int:
        """One turn with these changes; the stores it took."""
        before = self.watch.stores
        self.controller.changed(changes(*objects))
        self.controller.turn(now)
        return self.watch.stores - before

    def sync(self) -> None:
        """The first full state is in."""
        self.controller.synced()
        self.controller.turn(0.0)

    def accepting(self) -> set[bytes]:
        """The addresses in the table that accept node ports."""
        return {
            key
            for key, value in self.table.items()
            if NodeAddress.unpack(value).flags & AddressFlag.NODE_PORT
        }

    def status(self) -> dict[str, Any]:
        """With everything attached."""
        return status(self.controller, {"connect4": True}, 0, {})


def test_nothing_is_written_before_the_first_full_state() -> None:
    """Neither services nor addresses: what an agent before left goes on."""
    bench = Bench()
    assert bench.apply(WEB, slice_of("web", "1")) == 0
    assert bench.apply(Node("n1", "a", (parse("192.0.2.1"),))) == 0
    bench.sync()
    assert bench.watch.stores > 0
    assert bench.accepting() == {parse("192.0.2.1")}


def test_changes_before_the_first_full_state_coalesce() -> None:
    """Only the last of several versions is ever written."""
    bench, straight = Bench(), Bench()
    for number in range(1, 6):
        bench.apply(WEB, slice_of("web", str(number)))
    bench.sync()
    straight.apply(WEB, slice_of("web", "5"))
    straight.sync()
    assert bench.watch.stores == straight.watch.stores


def test_there_and_back_within_a_turn_is_no_store() -> None:
    """A to B to A, taken together, is nothing."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1"))
    bench.sync()
    assert bench.apply(slice_of("web", "2"), slice_of("web", "1")) == 0


def test_a_resync_is_no_store() -> None:
    """The same objects again."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1"))
    bench.sync()
    assert bench.apply(WEB, slice_of("web", "1")) == 0


def test_a_new_zone_plans_everything_again() -> None:
    """Hints count from the node's new zone on."""
    bench = Bench()
    hinted = msgspec.structs.replace(
        slice_of("web"),
        endpoints=tuple(
            Endpoint(parse(f"10.0.0.{n}"), zone_hints=(zone,)) for n, zone in ((1, "a"), (2, "b"))
        ),
    )
    bench.apply(WEB, hinted, Node("n1", "a"))
    bench.sync()
    (placed,) = bench.reconciler.units.values()
    assert placed.plan is not None
    assert [one.views for one in placed.plan.backends] == [7, 0]
    assert bench.apply(Node("n2", "b")) == 0
    bench.apply(Node("n1", "b"))
    assert placed.plan is not None
    assert [one.views for one in placed.plan.backends] == [0, 7]


def test_a_new_address_is_followed() -> None:
    """The primary address moves with the device that holds the default route."""
    bench = Bench()
    bench.sync()
    bench.controller.devices([(parse("198.51.100.1"), "eth1"), *bench.held], ["eth1"])
    bench.controller.turn(1.0)
    assert bench.accepting() == {parse("198.51.100.1")}


def test_addresses_that_could_not_be_written_are_tried_again() -> None:
    """The error shows meanwhile, and the node is not healthy."""
    bench = Bench()
    bench.watch.fail_at = 0
    bench.sync()
    assert bench.status()["healthy"] is False
    assert bench.controller._pause() == 1.0
    bench.controller.turn(1.0)
    assert bench.status()["healthy"] is True
    assert bench.accepting() == {parse("192.0.2.1")}


def test_what_could_not_be_removed_is_removed_without_any_change() -> None:
    """The loop comes back by itself for a frontend that a fault left behind."""
    bench = Bench()
    bench.apply(service("web", "10.96.0.10"), slice_of("web", "1"))
    bench.sync()
    bench.watch.fail_at = 0
    bench.controller.changed([Change(Key(Kind.SERVICE, "default", "web"), None)])
    bench.controller.turn(1.0)
    bench.watch.fail_at = None
    assert bench.controller._pause() is not None
    bench.controller.turn(2.0)
    assert list(bench.watch.plain.frontends.items()) == []
    assert bench.controller._pause() is None
    assert differences(bench.reconciler) == []


def test_the_revision_moves_with_what_changed_and_wakes_who_waits() -> None:
    """A long poll is answered by the turn that changed something, and by no other."""
    bench = Bench()
    bench.sync()
    controller, before = bench.controller, bench.controller.revision
    controller.turn(1.0)
    assert controller.revision == before
    waiting, answered = threading.Event(), threading.Event()

    def wait() -> None:
        with controller.lock:
            waiting.set()
            if controller.lock.wait_for(lambda: controller.revision > before, timeout=10):
                answered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    bench.apply(WEB)
    assert answered.wait(10)
    thread.join()


@pytest.mark.parametrize("table", ["backends", "frontends", "names"])
def test_tries_that_change_nothing_keep_the_revision(table: str) -> None:
    """Whatever is full: the first failure and its end move it, the tries between do not."""
    bench = Bench(watched({table: 3 if table == "backends" else 2}))
    bench.apply(service("a", "10.96.0.11"), slice_of("a", "1"))
    bench.apply(service("b", "10.96.0.12"), slice_of("b", "2"))
    bench.sync()
    bench.apply(service("c", "10.96.0.13"), slice_of("c", "3"))
    assert len(bench.reconciler.failing) == 1
    before = bench.controller.revision
    for bench.watch.now in (10.0, 20.0):
        bench.controller.turn(bench.watch.now)
    (failing,) = bench.reconciler.failing.values()
    assert (failing.attempts, bench.controller.revision) == (3, before)
    bench.controller.changed([Change(Key(Kind.SERVICE, "default", "a"), None)])
    bench.controller.turn(21.0)
    before = bench.controller.revision
    bench.watch.now = 30.0
    bench.controller.turn(bench.watch.now)
    assert (bench.reconciler.failing, bench.controller.revision) == ({}, before + 1)


def test_another_reason_for_a_failure_moves_the_revision() -> None:
    """Who waits for it learns the new text."""
    bench = Bench()
    bench.sync()
    bench.watch.fail_at = 0
    bench.apply(WEB)
    before = bench.controller.revision
    bench.watch.fail_at, bench.watch.error = 0, OSError(1, "Operation not permitted")
    bench.controller.turn(10.0)
    assert [one.error for one in bench.reconciler.failing.values()] == [str(bench.watch.error)]
    assert bench.controller.revision == before + 1


def test_addresses_of_the_node_move_the_revision() -> None:
    """One that comes, and one that goes; not the same ones again, and an error once."""
    bench = Bench()
    bench.sync()
    second = [*bench.held, (parse("2001:db8::7"), "eth0")]
    for held, moved in ((second, 1), (second, 0), (bench.held, 1), (bench.held, 0)):
        before = bench.controller.revision
        bench.controller.devices(held, [])
        bench.controller.turn(1.0)
        assert bench.controller.revision - before == moved
    bench.controller.devices(second, [])
    for fail_at, moved in ((0, 1), (0, 0), (None, 1)):
        before = bench.controller.revision
        bench.watch.fail_at = fail_at
        bench.controller.turn(2.0)
        assert bench.controller.revision - before == moved


def test_reports_replace_each_other() -> None:
    """The last one of a source counts; it moves the revision also before the first full state."""
    bench = Bench()
    for error, moved in (("down", 1), ("down", 1), ("", 2)):
        bench.controller.report(Report("manifests", "/m", error))
        bench.controller.turn(0.0)
        assert bench.status()["source"]["error"] == error
        assert bench.controller.revision == moved
    assert bench.status()["healthy"] is False  # not synced


def test_backends_that_leave_a_udp_service_are_given_to_the_reaper() -> None:
    """And none of TCP: established connections are their own business."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1", "2"))
    bench.sync()
    bench.work.clear()
    bench.apply(slice_of("web", "1"))
    assert bench.work == [Work()]


def test_no_pause_without_anything_to_wait_for() -> None:
    """The loop sleeps until it is woken."""
    assert Bench().controller._pause() is None


def test_losers_of_a_conflict_are_named() -> None:
    """Status names who waits, for which frontend, and who holds it; nothing else fails."""
    bench = Bench()
    other = service("other", "10.96.0.11", node_port=30080)
    bench.apply(WEB)
    bench.sync()
    bench.apply(other)
    (row,) = bench.status()["failing"]
    assert row == {
        "namespace": "default", "name": "other", "port_name": "", "protocol": "TCP",
        "family": Family.IPV4.label,
        "error": "node port 30080/TCP already leads to default/web/TCP (IPv4)",
    }  # fmt: skip
