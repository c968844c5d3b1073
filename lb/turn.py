"""What one turn of the controller did, for those who follow it: servers, events, logs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from lb.model import Key, Refused, ServiceName
from lb.plan import Unit


class Turn(NamedTuple):
    """One round: what came, and what became of it."""

    causes: Mapping[ServiceName, Key]
    """Services that changed, with the last object that changed them; empty in the first turn."""
    services: Collection[ServiceName]
    """Those, or in the first turn all."""
    first: bool
    refused: Sequence[Refused]
    """What is newly left out of objects."""
    failed: Mapping[Unit, str]
    """Units that now fail and did not before, or for another reason."""
    recovered: Collection[Unit]
    writes: int
    seconds: float
    """How long it took."""


Follower = Callable[[Turn], None]
"""Called under the controller's lock: must be quick, and must not ask the controller for it."""
