"""What the model of departure times promises, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth.pacing import QUEUE_NS, SECOND, Departure, Pacer, depart, terms
from bpf.layout import Edt
from tests.unit.bandwidth.crowd import ours, play, policed, tbf

FRAME = 1514
START = 1000 * SECOND
RATES = (10**6, 10**7, 10**8, 10**9, 10**10, 10**11)


def hashed(flow: int) -> int:
    """A flow's hash, as the kernel's: all bits matter."""
    return mmh3.hash(flow.to_bytes(4, "big"), signed=False)


def greedy(
    pacer: Pacer, lengths: Iterable[int], flows: int, *, seconds: float
) -> Iterator[tuple[int, int, Departure]]:
    """Flows that send again as soon as they may: when, how much, and what became of it."""
    end = START + int(seconds * SECOND)
    due = [START] * flows
    for length in lengths:
        flow = min(range(flows), key=due.__getitem__)
        now = due[flow]
        if now > end:
            return
        went = depart(pacer, hash_=hashed(flow), length=length, now=now)
        if went is None:
            due[flow] = now + max(1, length * SECOND // pacer.terms.rate // 20)
        else:
            due[flow] = max(now, went.at - pacer.terms.longest // 2)
            yield now, length, went


def always(length: int) -> Iterator[int]:
    """The same length, again and again; more than any test asks for."""
    return iter([length] * 30_000)


@pytest.mark.parametrize(
    ("bits", "flows"), [*((rate, 1) for rate in RATES), *((rate, 32) for rate in RATES[:3])]
)
@pytest.mark.parametrize("length", [64, FRAME, 65536])
def test_the_rate_is_exact(bits: int, flows: int, length: int) -> None:
    """What leaves between the first packet and the last is the rate to 1 %, at any size."""
    pacer = Pacer(terms(bits))
    seconds = max(1.0, 3000 * length * 8 / bits) if length < 65536 or bits > 10**6 else 400.0
    seconds = min(seconds, 20_000 * length * 8 / bits)
    gone = sorted(
        (went.at, size) for _, size, went in greedy(pacer, always(length), flows, seconds=seconds)
    )
    took = gone[-1][0] - gone[0][0]
    sent = sum(size for _, size in gone[:-1])
    assert sent * 8 * SECOND / took == pytest.approx(bits, rel=0.01)


@given(
    st.sampled_from(RATES),
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 99), st.integers(60, 65536)), max_size=80
    ),
)
def test_never_more_than_the_rate_and_the_queue(
    bits: int, sent: list[tuple[int, int, int]]
) -> None:
    """Whatever flows do: what leaves by any time is the rate, one packet, and what overtook."""
    pacer, now = Pacer(terms(bits)), START
    gone = []
    for gap, flow, length in sent:
        now += gap
        went = depart(pacer, hash_=hashed(flow), length=length, now=now)
        if went is not None:
            assert now <= went.at
            gone.append((went.at, length))
    for start in {at for at, _ in gone}:
        for end in {at for at, _ in gone if at >= start}:
            inside = [length for at, length in gone if start <= at <= end]
            allowed = pacer.terms.rate * (end - start + 2 * pacer.terms.longest) // SECOND
            assert sum(inside) <= allowed + 2 * max(inside) + len(inside)


def test_a_pause_saves_nothing_up() -> None:
    """After an hour's pause one packet leaves at once, and the next ones at the rate."""
    pacer = Pacer(terms(10**7))
    for now in (START, START + 3600 * SECOND):
        went = [depart(pacer, hash_=1, length=65536, now=now) for _ in range(3)]
        gaps = [0 if one is None else one.at - now for one in went]
        assert gaps[:2] == [0, 65536 * 8 * 100]


def test_packets_of_a_flow_leave_in_order() -> None:
    """Also when some of them overtake others' and some do not."""
    pacer, now, last = Pacer(terms(10**7)), START, 0
    for number in range(2000):
        now += 300_000
        depart(pacer, hash_=hashed(number % 31 + 100), length=FRAME, now=now)
        went = depart(pacer, hash_=hashed(7), length=(80, FRAME, 3 * FRAME)[number % 3], now=now)
        if went is not None:
            assert went.at >= last
            last = went.at


@pytest.mark.parametrize("bits", [10**6, 10**7, 10**8, 10**9])
def test_a_thin_flow_overtakes_bulk_ones(bits: int) -> None:
    """A small packet now and then leaves within a quarter of what the others wait."""
    pacer, now = Pacer(terms(bits)), START
    waits = {True: [], False: []}  # type: dict[bool, list[int]]
    step = FRAME * 8 * SECOND // bits
    thin_every = 400
    for number in range(6000):
        now += step * 9 // 10
        thin = number % thin_every == thin_every - 1
        length = 100 if thin else FRAME
        went = depart(pacer, hash_=hashed(63 if thin else number % 32), length=length, now=now)
        if went is not None and number > 1000:
            waits[thin].append(went.at - now)
    assert len(waits[True]) == 5000 // thin_every + 1
    assert max(waits[True]) * 4 <= sum(waits[False]) / len(waits[False])


@pytest.mark.parametrize(
    ("bits", "longest", "mark"),
    [
        (10**9, QUEUE_NS, 1_000_000),
        (10**7, QUEUE_NS, 2_422_400),
        (10**6, 262_144_000, 24_224_000),
        (1000, Edt.HORIZON, Edt.HORIZON),
    ],
)
def test_terms_follow_the_rate(bits: int, longest: int, mark: int) -> None:
    """50 ms of queue and marks from 1 ms on; at low rates enough packets; never above 2 s."""
    assert terms(bits) == (bits // 8, longest, mark)


def test_nothing_waits_beyond_the_horizon() -> None:
    """At 1 kbit/s a full frame takes 12 s: one leaves, and nothing stands behind it."""
    pacer = Pacer(terms(1000))
    assert depart(pacer, hash_=1, length=FRAME, now=START) == Departure(
        START, mark=False, overtook=False
    )
    assert depart(pacer, hash_=1, length=FRAME, now=START) is None


def test_marks_begin_where_the_queue_does() -> None:
    """Not for the first packet, and for all that wait longer than the threshold."""
    pacer = Pacer(terms(10**9))
    went = [depart(pacer, hash_=1, length=FRAME, now=START) for _ in range(200)]
    waits = [(one.at - START, one.mark) for one in went if one is not None]
    assert all(mark == (wait > 1_000_000) for wait, mark in waits)
    assert {mark for _, mark in waits} == {True, False}


@pytest.mark.parametrize(("bits", "flows"), [(10**6, 32), (4 * 10**6, 32), (10**7, 8), (10**7, 32)])
def test_requests_are_quick_beside_bulk_tcp(bits: int, flows: int) -> None:
    """None is lost; p50 and p99 are 4 times below TBF's; the rate is exact to 1 %."""
    seconds = 12 if bits > 10**6 else 20
    found = play(ours(bits), flows=flows, seconds=seconds, seed=bits)
    theirs = play(tbf(bits), flows=flows, seconds=seconds, seed=bits)
    assert found.rate == pytest.approx(bits, rel=0.01)
    assert found.lost == 0
    assert found.p50 * 4 <= theirs.p50
    assert found.p99 * 4 <= theirs.p99


@pytest.mark.parametrize("flows", [1, 8])
def test_tcp_gets_its_whole_rate_where_it_is_paced(flows: int) -> None:
    """And not where it is policed, even with a bucket of 100 ms: why ingress is paced, too."""
    paced, cut = (
        play(queue, flows=flows, seconds=12, seed=1) for queue in (ours(10**7), policed(10**7))
    )
    assert paced.rate == pytest.approx(10**7, rel=0.01)
    assert cut.rate < 0.8 * paced.rate
