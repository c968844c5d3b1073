"""Which addresses are services', and which of those serve."""

from __future__ import annotations

import pytest

from bpf.layout import Vip, VipFlag
from lb.address import parse
from lb.model import ServiceName
from lb.plan import Here, plan
from lb.reconcile import Reconciler
from lb.tables import Tables, in_memory
from tests.packet.given import CLUSTER_IPS, Given, service

HERE = Here("n1", "a", (parse("192.0.2.1"),))
VIP = "203.0.113.10"
THERE, DRAINING = "10.244.2.5:8080 n2", "10.244.2.5:8080 n2 draining"


class Bench:
    """A reconciler over tables in memory."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables or in_memory()
        self.reconciler = Reconciler(self.tables, guard=lambda: None)
        self._now = 0.0

    def give(self, *given: Given) -> None:
        """These services and no others."""
        plans = {one.name: plan(one, slices, HERE) for one, slices in given}
        gone: set[ServiceName] = self.reconciler.known_services() - plans.keys()
        self._now += 10
        self.reconciler.step({**dict.fromkeys(gone, ()), **plans}, self._now)
        assert not self.reconciler.failing

    def serving(self) -> dict[str, bool]:
        """Whether each address serves."""
        names = {parse(one): one for one in (VIP, *CLUSTER_IPS.values())}
        return {
            names[key]: bool(Vip.unpack(value).flags & VipFlag.SERVES)
            for key, value in self.tables.vips.items()
        }


@pytest.fixture
def bench() -> Bench:
    """Nothing yet."""
    return Bench()


CLUSTER = next(one for one in CLUSTER_IPS.values() if "." in one)
ROWS = [
    # kind, backends, external policy Local, what serves
    ("load balancer", [THERE], False, {VIP: True, CLUSTER: True}),
    ("external", [THERE], False, {VIP: True, CLUSTER: True}),
    ("load balancer", [], False, {VIP: False, CLUSTER: False}),
    ("load balancer", [DRAINING], False, {VIP: True, CLUSTER: True}),
    ("load balancer", [THERE], True, {VIP: False, CLUSTER: True}),
    ("node port", [THERE], False, {CLUSTER: True}),
]


@pytest.mark.parametrize(("kind", "backends", "local", "wanted"), ROWS)
def test_serves_while_a_backend_is_usable(
    bench: Bench,
    kind: str,
    backends: list[str],
    local: bool,  # noqa: FBT001
    wanted: dict[str, bool],
) -> None:
    """From outside, by each address's own policy; node ports have no address of their own."""
    bench.give(service(f"{VIP}:80/tcp", *backends, kind=kind, local=local))
    assert bench.serving() == wanted


def test_one_service_of_an_address_is_enough(bench: Bench) -> None:
    """Two services on one address: it serves while either does, and goes with the last."""
    first = service(f"{VIP}:80/tcp", THERE, name="one")
    second = service(f"{VIP}:81/tcp", name="two")
    bench.give(first, second)
    assert bench.serving()[VIP]
    bench.give(second)
    assert not bench.serving()[VIP]
    bench.give(second, first)
    assert bench.serving()[VIP]
    bench.give()
    assert bench.serving() == {}


def test_an_endpoint_that_comes_and_goes(bench: Bench) -> None:
    """The address follows."""
    for backends in ((THERE,), (), (THERE,)):
        bench.give(service(f"{VIP}:80/tcp", *backends))
        assert bench.serving()[VIP] is bool(backends)


def test_a_restart_forgets_what_nobody_has(bench: Bench) -> None:
    """What an agent before left is taken over, and what no service has any more goes."""
    bench.give(service(f"{VIP}:80/tcp", THERE))
    bench.tables.vips.put({parse("203.0.113.99"): Vip(VipFlag.SERVES).pack()})
    again = Bench(bench.tables)
    again.reconciler.adopt()
    again.give(service(f"{VIP}:80/tcp", THERE))
    again.reconciler.prune(20.0)
    assert again.serving() == {VIP: True, CLUSTER: True}
