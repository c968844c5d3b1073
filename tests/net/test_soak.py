"""Random changes and random faults end as a fresh start would: a short form of `bench.soak`."""

from __future__ import annotations

import pytest

from bench.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_half_a_minute_of_faults() -> None:
    """No connect to a service that nothing changed fails; in the end no unit differs."""
    row = soak(30.0, seed=1, services=100, silences=False)
    assert (row["different"], row["failed"]) == (0, 0)
    assert int(row["changes"]) > 500
    assert int(row["connects"]) > 200
    assert int(row["faults"]) >= 8
