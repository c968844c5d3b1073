"""A flood of changes on the wire: a short form of `bench.flood`."""

from __future__ import annotations

import pytest

from bench.flood import flood


@pytest.mark.slow
def test_a_thousand_changes_a_second() -> None:
    """All of them arrive, soon; memory is bounded; updates that change nothing write nothing."""
    row = flood(300, rate=1000, seconds=4.0)
    assert float(row["changes/s"]) > 300  # the server shares the processors
    assert float(row["lag p99 ms"]) < 2000
    assert float(row["after MiB"]) < float(row["before MiB"]) + 20
    assert (int(row["no-op updates"]) > 300, row["their writes"]) == (True, 0)
