"""What the reaper is asked for; that it ends sockets is tested in namespaces."""

from __future__ import annotations

import pytest

from lb.address import Family, parse
from lb.reaper import Work

FOUR, SIX = Family.IPV4, Family.IPV6
IN_FOUR, IN_SIX = (parse("10.244.1.5"), 53), (parse("fd00::5"), 53)

ROWS = {
    "nothing": (Work(), set()),
    "backends of one family": (Work(backends=frozenset([IN_FOUR])), {FOUR}),
    "frontends of the other": (Work(frontends=frozenset([IN_SIX])), {SIX}),
    "one of each": (Work(frozenset([IN_SIX]), frozenset([IN_FOUR])), {FOUR, SIX}),
    "everywhere": (Work(everywhere=True), {FOUR, SIX}),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_families_that_a_round_is_for(row: str) -> None:
    """Those of the addresses that it was given; after a start all."""
    work, families = ROWS[row]
    assert set(work.families) == families
