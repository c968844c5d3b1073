"""Says in the log what each turn did: each change once, with its object, its cause and its time."""

from __future__ import annotations

import logging

from lb.logs import V2, V4
from lb.turn import Turn

log = logging.getLogger("tidegate.controller")

MOST = 20
"""Services of one turn that are named one by one at `V2`; more of them only at `V4`."""


def tell(turn: Turn) -> None:
    """A follower of the controller."""
    for one in turn.refused:
        level = logging.WARNING if one.wrong else V4
        log.log(level, "Left out", extra={"object": one.subject, "reason": one.reason})
    if turn.first:
        numbers = (len(turn.services), turn.writes)
        log.info("synced: %d services, %d writes", *numbers, extra=_fields(turn))
    else:
        _changes(turn)
    for unit, error in turn.failed.items():
        log.error("Service fails", extra={"service": str(unit), "err": error})
    for unit in turn.recovered:
        log.info("Service no longer fails", extra={"service": str(unit)})


def _changes(turn: Turn) -> None:
    many = len(turn.causes) > MOST
    if many:
        log.log(V2, "Changes are applied", extra=_fields(turn, services=len(turn.causes)))
    level = V4 if many else V2
    if not log.isEnabledFor(level):
        return
    for name, cause in turn.causes.items():
        found = _fields(turn, service=str(name), cause=str(cause))
        log.log(level, "Change is applied", extra=found)


def _fields(turn: Turn, **more: object) -> dict[str, object]:
    """With how many entries of maps were written, and how long the turn took."""
    return {**more, "writes": turn.writes, "duration": f"{turn.seconds * 1000:.3g}ms"}
