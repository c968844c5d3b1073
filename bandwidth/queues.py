"""Which queues a device needs for departure times, decided from those that it has. Pure.

Only a default queue is replaced: one that nobody chose (handle 0), which the kernel puts back by
itself when ours goes. So nothing has to be remembered for `restore`: what is ours carries our
handle. An administrator's own queue stays; `fq`, alone or below `mq`, is as good as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bpf.qdisc import FQ, ROOT, Queue

OURS = 0x7D1E0000
"""The handle, as `tc` writes it: 7d1e: - the kernel numbers its own from 8001: on."""
MQ = "mq"
_DEFAULTS = frozenset(("noqueue", "pfifo_fast", "fq_codel", "pfifo", "cake", "sfq", FQ, MQ))


class Choice(NamedTuple):
    """What to do, in order; or why nothing can be done."""

    steps: tuple[Queue, ...] = ()
    fault: str = ""


def choose(queues: Sequence[Queue]) -> Choice:
    """The steps to `fq` at the root, or at every leaf of `mq`."""
    root = next((one for one in queues if one.parent == ROOT), None)
    if root is None or root.handle == 0:
        if root is not None and root.kind not in _DEFAULTS:
            return Choice(fault=f"its queue is {root.kind}: replace it with fq")
        return Choice(_fresh(root, queues))
    leaves = _leaves(root, queues)
    if root.kind == FQ or (root.kind == MQ and leaves and all(one.kind == FQ for one in leaves)):
        return Choice()
    if root.handle == OURS and root.kind == MQ:
        return Choice(_below(leaves))
    return Choice(
        fault=f"it has a queue of its own ({root.kind}), which departure times do not fit"
    )


def _fresh(root: Queue | None, queues: Sequence[Queue]) -> tuple[Queue, ...]:
    if root is None or root.kind != MQ:
        return (Queue(FQ, OURS, ROOT),)
    return (Queue(MQ, OURS, ROOT), *_below(_leaves(root, queues)))


def _leaves(root: Queue, queues: Sequence[Queue]) -> list[Queue]:
    return [one for one in queues if one.parent != ROOT and one.parent >> 16 == root.handle >> 16]


def _below(leaves: Sequence[Queue]) -> tuple[Queue, ...]:
    """`fq` in place of each leaf that is none. Handle 0: the kernel numbers it."""
    return tuple(
        Queue(FQ, 0, OURS | one.parent & 0xFFFF)
        for one in leaves
        if one.kind != FQ or one.handle == 0
    )


def is_ours(queues: Sequence[Queue]) -> bool:
    """Is the root one that we put there?"""
    return any(one.parent == ROOT and one.handle == OURS for one in queues)
