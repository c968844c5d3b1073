"""Who owns a frontend: one holder each, cluster IPs first, incumbents keep, successors follow."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bpf.layout import FrontendType
from lb.address import Family
from lb.claims import Claims
from lb.model import Protocol, ServiceName
from lb.plan import Frontend, Unit

CLUSTER, EXTERNAL = FrontendType.CLUSTER_IP, FrontendType.EXTERNAL_IP
K = b"198.51.100.1:80"


def unit(name: str) -> Unit:
    """A unit that is told by its name."""
    return Unit(ServiceName("default", name), "", Protocol.TCP, Family.IPV4)


A, B, C = unit("a"), unit("b"), unit("c")


def test_incumbent_keeps() -> None:
    """Among equals the first to come stays, whatever the names."""
    claims = Claims()
    assert claims.claim(B, Frontend(K, EXTERNAL))
    assert not claims.claim(A, Frontend(K, EXTERNAL))
    assert claims.held[K].unit == B
    assert claims.losses() == [(A, K, B)]


def test_cluster_ip_takes_over() -> None:
    """A cluster IP wins over an incumbent that is none, and the loser gets it back afterwards."""
    claims = Claims()
    claims.claim(A, Frontend(K, EXTERNAL))
    assert claims.claim(B, Frontend(K, CLUSTER))
    assert not claims.claim(C, Frontend(K, CLUSTER))
    claims.release(B, [K])
    assert claims.held[K].unit == C
    claims.release(C, [K])
    assert claims.held[K].unit == A


def test_successor_is_the_first_by_name() -> None:
    """When the holder leaves, the first by name of those who wait follows."""
    claims = Claims()
    for one in (B, C, A):
        claims.claim(one, Frontend(K, EXTERNAL))
    claims.release(B, [K])
    assert claims.held[K].unit == A


def test_a_claim_may_change_its_type() -> None:
    """Who waits for an address takes it once it becomes its cluster IP, and waits no more."""
    claims = Claims()
    claims.claim(A, Frontend(K, EXTERNAL))
    claims.claim(B, Frontend(K, EXTERNAL))
    assert claims.claim(B, Frontend(K, CLUSTER))
    assert claims.losses() == [(A, K, B)]


def test_a_cluster_ip_given_up_for_a_lesser_claim_goes_to_one_who_waits() -> None:
    """A holder that turns its cluster IP into an external IP yields to a cluster IP."""
    claims = Claims()
    claims.claim(A, Frontend(K, CLUSTER))
    claims.claim(B, Frontend(K, CLUSTER))
    assert not claims.claim(A, Frontend(K, EXTERNAL))
    assert claims.held[K].unit == B


def test_release_of_what_was_never_claimed_is_nothing() -> None:
    """Releasing another's frontend takes nothing from it."""
    claims = Claims()
    claims.claim(A, Frontend(K, EXTERNAL))
    claims.release(B, [K, b"other"])
    assert claims.held[K].unit == A


class Rivals(RuleBasedStateMachine):
    """Random claims and releases beside a plain list of wishes."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.wishes: dict[tuple[bytes, Unit], Frontend] = {}

    @rule(
        one=st.sampled_from([A, B, C]),
        key=st.sampled_from([b"x", b"y"]),
        kind=st.sampled_from([CLUSTER, EXTERNAL]),
    )
    def claim(self, one: Unit, key: bytes, kind: FrontendType) -> None:
        """A newcomer gets what is free or lesser; an incumbent keeps against equals."""
        before = self.claims.held.get(key)
        self.wishes[key, one] = Frontend(key, kind)
        won = self.claims.claim(one, Frontend(key, kind))
        assert won == (self.claims.held[key].unit == one)
        if before is not None and before.unit != one:
            assert won == (kind == CLUSTER and before.frontend.type != CLUSTER)

    @rule(one=st.sampled_from([A, B, C]), keys=st.sets(st.sampled_from([b"x", b"y"])))
    def release(self, one: Unit, keys: set[bytes]) -> None:
        """Others keep what they hold."""
        before = dict(self.claims.held)
        self.claims.release(one, keys)
        for key in keys:
            self.wishes.pop((key, one), None)
        for key, claim in before.items():
            if claim.unit != one or key not in keys:
                assert self.claims.held[key] == claim

    @invariant()
    def one_holder_for_each_wish(self) -> None:
        """Every wanted frontend has one holder, who wants it; a cluster IP if any wants it so."""
        assert self.claims.held.keys() == {key for key, _ in self.wishes}
        for key, claim in self.claims.held.items():
            rivals = {u: one for (k, u), one in self.wishes.items() if k == key}
            assert rivals[claim.unit] == claim.frontend
            wanted_as = {one.type for one in rivals.values()}
            assert (claim.frontend.type == CLUSTER) == (CLUSTER in wanted_as)

    @invariant()
    def the_others_wait(self) -> None:
        """Losses are all other wishes, and nothing is kept for those who left."""
        losses = {(key, one) for one, key, _ in self.claims.losses()}
        held = {(key, claim.unit) for key, claim in self.claims.held.items()}
        assert losses == self.wishes.keys() - held
        assert all(self.claims._waiting.values())
        for one in (A, B, C):
            assert self.claims.of(one) == {key for key, u in self.wishes if u == one}
        assert self.claims._wishes.keys() == {one for _, one in self.wishes}


TestRivals = Rivals.TestCase
TestRivals.settings = settings(max_examples=80, stateful_step_count=30)
