"""Which queues are put where, and which are left alone."""

from __future__ import annotations

import pytest

from bandwidth.queues import OURS, Choice, choose, is_ours
from bpf.qdisc import ROOT, Queue

THEIRS = 0x80010000


@pytest.mark.parametrize(
    ("there", "choice"),
    [
        ([], Choice((Queue("fq", OURS, ROOT),))),
        ([Queue("noqueue", 0, ROOT)], Choice((Queue("fq", OURS, ROOT),))),
        ([Queue("fq_codel", 0, ROOT)], Choice((Queue("fq", OURS, ROOT),))),
        ([Queue("fq", 0, ROOT)], Choice((Queue("fq", OURS, ROOT),))),
        ([Queue("fq", OURS, ROOT)], Choice()),
        ([Queue("fq", THEIRS, ROOT)], Choice()),
        (
            [Queue("mq", 0, ROOT), Queue("fq_codel", 0, 1), Queue("fq_codel", 0, 2)],
            Choice((Queue("mq", OURS, ROOT), Queue("fq", 0, OURS | 1), Queue("fq", 0, OURS | 2))),
        ),
        ([Queue("mq", OURS, ROOT), Queue("fq", THEIRS, OURS | 1)], Choice()),
        (
            [Queue("mq", OURS, ROOT), Queue("fq", THEIRS, OURS | 1), Queue("pfifo", 0, OURS | 2)],
            Choice((Queue("fq", 0, OURS | 2),)),
        ),
        ([Queue("mq", THEIRS, ROOT), Queue("fq", 0x80020000, THEIRS | 1)], Choice()),
    ],
)
def test_a_default_queue_makes_room_for_fq(there: list[Queue], choice: Choice) -> None:
    """Single queue: fq. Several: mq with fq at each. What fits already is left alone."""
    assert choose([*there, Queue("clsact", 0xFFFF0000, 0xFFFFFFF1)]) == choice


@pytest.mark.parametrize("kind", ["htb", "tbf", "netem", "mq"])
def test_an_administrators_queue_stays(kind: str) -> None:
    """It is named as what keeps limits from being enforced."""
    found = choose([Queue(kind, THEIRS, ROOT)])
    assert found.steps == ()
    assert kind in found.fault


def test_after_our_steps_there_is_nothing_to_do() -> None:
    """Put on once, not again and again."""
    before = [Queue("mq", 0, ROOT), Queue("fq_codel", 0, 1), Queue("fq_codel", 0, 2)]
    steps = choose(before).steps
    after = [Queue(one.kind, one.handle or THEIRS + number, one.parent)
             for number, one in enumerate(steps)]  # fmt: skip
    assert choose(after) == Choice()
    assert is_ours(after)
    assert not is_ours(before)
