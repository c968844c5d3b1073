"""Where limits need programs and queues, whether they are in force, and how they are shown."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from bandwidth.annotations import Direction
from bandwidth.book import Book, Tables
from bandwidth.plan import Owner, Pod, Wanted, plan
from bpf.layout import Limit, LimitState
from bpf.maps import MemoryArray, MemoryHash
from lb.address import parse
from lb.limits import cgroups
from lb.limits.measure import ENOUGH, Gauge, Sample
from lb.limits.metrics import LimitsCollector
from lb.limits.places import Places, places, state
from lb.limits.show import TEXTS, flat, limits

EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS
A, B = parse("10.244.1.10"), parse("10.244.1.11")
WAYS = {A: {"v-a"}, B: {"v-b"}}


def pod(name: str, address: bytes, **asked: str) -> Pod:
    """A pod with these annotations."""
    return Pod("default", name, (address,), {Direction(way): text for way, text in asked.items()})


def found(*pods: Pod, scope_all: bool = False) -> Places:
    """The places that these pods need, with eth0 as the device that leaves the node."""
    return places(
        pods, plan(pods, {}).limits, ["eth0"], lambda one: WAYS.get(one, set()),
        within_node=scope_all,
    )  # fmt: skip


def test_without_limits_nothing_is_touched() -> None:
    """Not a single device."""
    assert found(pod("a", A), pod("b", B)) == Places()


def test_egress_needs_the_pods_device_and_those_that_leave() -> None:
    """Named where its packets enter, paced where they leave; other pods are left alone."""
    assert found(pod("a", A, egress="10M"), pod("b", B)) == Places(
        frozenset({"v-a"}), frozenset(), frozenset({"eth0"})
    )


def test_ingress_needs_the_pods_device_alone() -> None:
    """Nothing changes for what leaves the node."""
    assert found(pod("a", A, ingress="10M"), pod("b", B)) == Places(towards=frozenset({"v-a"}))


def test_scope_all_needs_the_devices_of_all_pods() -> None:
    """Whoever a limited pod may send to."""
    here = found(pod("a", A, egress="10M"), pod("b", B), scope_all=True)
    assert (here.naming, here.towards) == ({"v-a"}, {"v-a", "v-b"})
    assert here.paced() == {"v-a", "v-b", "eth0"}


def test_on_the_hosts_network_only_what_leaves_is_paced() -> None:
    """No device of its own, and the limit is in force where the node's devices are in order."""
    one = Pod("default", "h", (A,), {EGRESS: "10M"}, is_host_network=True, cgroup=7)
    here = found(one)
    assert here == Places(leaving=frozenset({"eth0"}))
    (wanted,) = plan([one], {}).limits.values()
    assert state(wanted, EGRESS, (), here, ()) == LimitState.ENFORCED
    assert state(wanted, EGRESS, (), here, ("eth0",)) == LimitState.NO_DEVICE


@pytest.mark.parametrize(
    "path",
    [
        "kubepods/pod1-2", "kubepods/burstable/pod1-2",
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice",
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1_2.slice",
    ],
)  # fmt: skip
def test_a_pods_cgroup_is_found_by_its_uid(tmp_path: Path, path: str) -> None:
    """As the kubelet names it with either driver; others, and containers, are not it."""
    folder = tmp_path / path
    (folder / "cri-containerd-pod1-2.scope").mkdir(parents=True)
    (tmp_path / "kubepods" / "pod1-3").mkdir(parents=True)
    assert cgroups.find(tmp_path, {"1-2", "", "9-9"}) == {"1-2": folder.stat().st_ino}
    assert cgroups.find(tmp_path / "gone", {"1-2"}) == {}


def test_a_device_that_leaves_the_node_names_no_pod() -> None:
    """A pod of another node, wrongly listed as one of this: its way leads outside."""
    one = pod("a", A, egress="10M")
    here = places([one], plan([one], {}).limits, ["eth0"], lambda _: {"eth0"}, within_node=False)
    assert here.naming == frozenset()


@pytest.mark.parametrize(
    ("devices", "bad", "expected"),
    [
        ({"v-a"}, (), LimitState.ENFORCED),
        (set(), (), LimitState.NO_DEVICE),
        ({"v-a"}, ("v-a",), LimitState.NO_DEVICE),
        ({"v-a"}, ("eth0",), LimitState.NO_DEVICE),
        ({"v-a"}, ("eth9",), LimitState.ENFORCED),
    ],
)
def test_a_limit_is_in_force_where_all_is_in_place(
    devices: set[str], bad: tuple[str, ...], expected: LimitState
) -> None:
    """On the pod's device and on those that leave; a fault elsewhere does not count."""
    here = found(pod("a", A, egress="10M"))
    assert state(Wanted(10**7, (A,)), EGRESS, devices, here, bad) == expected


def test_without_a_device_that_leaves_egress_is_not_enforced() -> None:
    """There is nothing to pace at."""
    here = Places(naming=frozenset({"v-a"}))
    assert state(Wanted(10**7, (A,)), EGRESS, {"v-a"}, here, ()) == LimitState.NO_DEVICE


@pytest.mark.parametrize(
    ("delayed", "held", "loose"),
    [(ENOUGH, 0, True), (ENOUGH, 1, False), (ENOUGH - 1, 0, False), (0, 0, False)],
)
def test_packets_that_leave_before_their_time_are_noticed(
    delayed: int,
    held: int,
    loose: bool,  # noqa: FBT001
) -> None:
    """Told to wait, and no queue held one back: the limit is not in force, and says so."""
    gauge = Gauge()
    assert not gauge.loose([Sample(1000, 0)], 500)
    assert bool(gauge.loose([Sample(1000 + delayed, 0)], 500 + held)) is loose


def test_a_limit_that_went_is_no_evidence() -> None:
    """Counts that fall back begin anew."""
    gauge = Gauge()
    gauge.loose([Sample(1000, 0)], 500)
    assert not gauge.loose([], 500)
    assert not gauge.loose([Sample(10, 0)], 500)


@pytest.fixture
def shown() -> Tables:
    """Two limits of one pod, one of them used."""
    tables = Tables(MemoryArray(9, Limit.SIZE), MemoryHash(64), MemoryHash(64))
    wanted = {
        Owner("default", "a", EGRESS): Wanted(10_000_000, (A,)),
        Owner("default", "a", INGRESS): Wanted(1_500_000_000, (A,)),
    }
    states = dict.fromkeys(wanted, LimitState.ENFORCED)
    book = Book(tables)
    book.apply(wanted, states)
    number = book.held[Owner("default", "a", EGRESS)].number
    raw = bytearray(tables.limits.read(number))
    struct.pack_into("=10Q", raw, 64, 5, 7000, 9, 4, 5600, 1, 2, 3, 4500, 12_000)
    tables.limits.write(number, bytes(raw))
    return tables


def test_a_row_a_pod(shown: Tables) -> None:
    """As the contract has it, and what each direction did."""
    (row,) = limits(shown)
    assert {key: row[key] for key in ("namespace", "pod", "address", "state")} == {
        "namespace": "default", "pod": "a", "address": "10.244.1.10", "state": "enforced",
    }  # fmt: skip
    assert row["egress_bits_per_second"] == 10_000_000
    assert row["ingress_bits_per_second"] == 1_500_000_000
    assert row["egress"] == {
        "state": "enforced", "packets": 5, "bytes": 7000, "waited_ns": 9, "delayed": 4,
        "delayed_bytes": 5600, "overtook": 1, "marked": 2, "dropped": 3, "dropped_bytes": 4500,
        "unshaped_bytes": 500,
    }  # fmt: skip


def test_a_row_in_words(shown: Tables) -> None:
    """Rates by thousands, counts of both directions together."""
    (row,) = limits(shown)
    words = flat(row)
    assert (words["pod"], words["egress"], words["ingress"]) == (
        "default/a", "10 Mbit/s", "1.5 Gbit/s",
    )  # fmt: skip
    assert (words["bytes"], words["dropped"], words["marked"]) == (7000, 3, 2)


def test_metrics_by_pod_and_direction(shown: Tables) -> None:
    """Names and labels that dashboards rely on."""
    rows: list[dict[str, Any]] = limits(shown)
    samples = {
        (one.name, one.labels["direction"]): one.value
        for metric in LimitsCollector(lambda: rows).collect()
        for one in metric.samples
    }
    assert samples["tidegate_limit_bits_per_second", "ingress"] == 1.5e9
    assert samples["tidegate_limit_enforced", "egress"] == 1
    assert samples["tidegate_limit_dropped_bytes_total", "egress"] == 4500
    assert samples["tidegate_limit_delayed_bytes_total", "egress"] == 5600
    assert samples["tidegate_limit_delayed_bytes_total", "ingress"] == 0


def test_every_state_has_words() -> None:
    """None is shown as a number, and only one of them means that the limit is in force."""
    assert set(TEXTS) == set(LimitState)
    assert [one for one, text in TEXTS.items() if text == "enforced"] == [LimitState.ENFORCED]
