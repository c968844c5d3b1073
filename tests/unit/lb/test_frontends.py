"""A full table of frontends, and a kernel that refuses: all new ones of a unit, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import Frontend
from lb.address import Address, parse
from lb.model import Protocol, ServiceName, ServicePort
from lb.names import show_key
from lb.plan import Plan
from lb.reconcile import Reconciler
from lb.tables import FLAGS
from tests.unit.lb.faulty import Watch, watched
from tests.unit.lb.making import plans, service

ROOM = 4
FAMILIES = [("10.96.0.1{}", "198.51.100.{}"), ("fd00::1{}", "2001:db8::{}")]
PROTOCOLS = [Protocol.TCP, Protocol.UDP]


class Bench:
    """An agent with a small table of frontends, for services of one family and protocol."""

    def __init__(self, family: tuple[str, str], protocol: Protocol, room: int = ROOM) -> None:
        self.cluster, self.external = family
        self.port = ServicePort("", protocol, 80)
        self.watch: Watch = watched({"frontends": room})
        self.agent = Reconciler(self.watch.tables, guard=lambda: None)

    def plans(
        self, name: str, *externals: int, ip: str = ""
    ) -> dict[ServiceName, tuple[Plan, ...]]:
        """A service `a` to `i` of this cluster IP, or one of its own, and external IPs."""
        return plans(
            service(
                name,
                self.cluster.format(ip or "abcdefghi".index(name)),
                ports=(self.port,),
                external_ips=tuple(self.ip(number) for number in externals),
            )
        )

    def ip(self, number: int) -> Address:
        """An external one."""
        return parse(self.external.format(number))

    def step(self, *wanted: dict[ServiceName, tuple[Plan, ...]]) -> None:
        """At once; a minute later."""
        self.watch.now += 60
        self.agent.step({k: v for one in wanted for k, v in one.items()}, self.watch.now)

    def go(self, name: str) -> dict[ServiceName, tuple[Plan, ...]]:
        """A service that goes."""
        return {ServiceName("default", name): ()}

    def there(self) -> dict[str, set[str]]:
        """The frontends in the table by service."""
        names = {placed.service: unit.service.name for unit, placed in self.agent.units.items()}
        found: dict[str, set[str]] = {}
        for key, value in self.watch.plain.frontends.items():
            found.setdefault(names[Frontend.unpack(value).service], set()).add(show_key(key))
        return found

    def count(self) -> dict[str, int]:
        """How many frontends lead to each service."""
        return {name: len(keys) for name, keys in self.there().items()}

    def failing(self) -> dict[str, str]:
        """The reasons by service."""
        return {unit.service.name: one.error for unit, one in self.agent.failing.items()}


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Forms of cluster and external IPs."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(params=PROTOCOLS, ids=lambda one: one.name)
def bench(request: pytest.FixtureRequest, family: tuple[str, str]) -> Bench:
    """Of each family and protocol."""
    return Bench(family, request.param)


def test_a_new_service_that_does_not_fit_has_no_frontend(bench: Bench) -> None:
    """Not some of them; the flag is named; it comes whole, by its retry, once there is room."""
    bench.step(bench.plans("a", 1))
    big = bench.plans("b", 2, 3)
    bench.step(big)
    assert bench.count() == {"a": 2}
    assert bench.failing().keys() == {"b"}
    assert FLAGS["frontends"] in bench.failing()["b"]
    bench.step(bench.plans("c"))
    assert bench.count() == {"a": 2, "c": 1}
    bench.step(bench.go("a"))
    assert bench.agent.due(bench.watch.now) == big.keys()
    bench.step(big)
    assert (bench.count(), bench.failing()) == ({"b": 3, "c": 1}, {})


def test_a_service_that_grows_too_far_keeps_what_it_had(bench: Bench) -> None:
    """What it had serves on, also through retries; when it asks for less again, it has that."""
    bench.step(bench.plans("a", 1))
    before = bench.there()
    for _ in range(2):
        bench.step(bench.plans("a", 1, 2, 3, 4))
        assert bench.there() == before
        assert bench.failing().keys() == {"a"}
    bench.step(bench.plans("a", 1, 2))
    assert (bench.count(), bench.failing()) == ({"a": 3}, {})


def test_addresses_that_are_exchanged_fit_into_a_full_table(bench: Bench) -> None:
    """What goes makes room for what comes in the same step."""
    bench.step(bench.plans("a", 1, 2, 3))
    bench.step(bench.plans("a", 4, 5, 6))
    assert (bench.count(), bench.failing()) == ({"a": 4}, {})
    assert (
        show_key(bench.plans("a", 6)[ServiceName("default", "a")][0].frontends[1].key)
        in (bench.there()["a"])
    )


def test_who_takes_over_does_so_whole_or_not_at_all(bench: Bench) -> None:
    """The address of a service that goes is not given to one that lacks room for the rest."""
    bench.step(bench.plans("a", 1), bench.plans("b", 2))
    bench.step(bench.go("a"), bench.plans("c", 1, 3, 4))
    assert bench.count() == {"b": 2}
    assert bench.failing().keys() == {"c"}
    bench.step(bench.go("b"))
    bench.step(bench.plans("c", 1, 3, 4))
    assert (bench.count(), bench.failing()) == ({"c": 4}, {})


def test_who_still_asks_serves_while_the_winner_does_not_fit(bench: Bench) -> None:
    """A cluster IP takes an external IP from its holder only when all of its own fits."""
    contested = {"ip": "7"}
    external = service(
        "a", bench.cluster.format(0), ports=(bench.port,),
        external_ips=(parse(bench.cluster.format("7")),),
    )  # fmt: skip
    bench.step(plans(external), bench.plans("b", 2))
    bench.step(bench.plans("c", 3, **contested))
    assert bench.count() == {"a": 2, "b": 2}
    bench.step(bench.go("b"))
    bench.step(bench.plans("c", 3, **contested))
    assert (bench.count(), bench.failing()) == ({"a": 1, "c": 2}, {})


def test_a_refused_frontend_takes_back_the_new_ones_beside_it(bench: Bench) -> None:
    """Whichever store the kernel refuses; other services of the same batch are served."""
    bench.step(bench.plans("a"))
    key = bench.plans("b", 2)[ServiceName("default", "b")][0].frontends[1].key
    put = bench.watch.tables.frontends.put

    def refusing(entries: dict[bytes, bytes]) -> None:
        for one, value in entries.items():
            if one == key:
                raise OSError(12, "Cannot allocate memory")
            put({one: value})

    bench.watch.tables.frontends.put = refusing  # type: ignore[method-assign, assignment]
    bench.step(bench.plans("b", 2), bench.plans("c"))
    assert bench.count() == {"a": 1, "c": 1}
    assert FLAGS["frontends"] in bench.failing()["b"]
    bench.watch.tables.frontends.put = put  # type: ignore[method-assign]
    bench.step(bench.go("c"), bench.plans("b", 2))
    assert (bench.count(), bench.failing()) == ({"a": 1, "b": 2}, {})


CHANGES = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.none() | st.sets(st.integers(1, 4)), st.sampled_from(["", "7"])
    ),
    max_size=12,
)


@given(CHANGES, st.integers(1, 6), st.sampled_from(FAMILIES))
def test_nothing_is_half_applied(
    changes: list[tuple[str, set[int] | None, str]], room: int, family: tuple[str, str]
) -> None:
    """Each service has all that it holds, or fails for want of room and has no more than before."""
    bench = Bench(family, Protocol.TCP, room)
    wishes: dict[str, tuple[set[int], str]] = {}
    for name, externals, ip in changes:
        before = bench.there()
        if externals is None:
            wishes.pop(name, None)
            bench.step(bench.go(name))
        else:
            wishes[name] = (externals, ip)
            bench.step(bench.plans(name, *externals, ip=ip))
        bench.step(*[bench.plans(one.name, *wishes[one.name][0], ip=wishes[one.name][1])
                     for one in bench.agent.due(bench.watch.now + 60)])  # fmt: skip
        there, held = bench.there(), dict[str, set[str]]()
        for key, claim in bench.agent.frontends.claims.held.items():
            held.setdefault(claim.unit.service.name, set()).add(show_key(key))
        free = room - sum(map(len, there.values()))
        for one in wishes:
            has, should = there.get(one, set()), held.get(one, set())
            if one in bench.failing():
                assert has <= before.get(one, set())
                assert len(should - set().union(*there.values())) > free
            else:
                assert has >= should
