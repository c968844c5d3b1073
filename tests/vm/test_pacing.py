"""Pod bandwidth on Debian's kernel 6.1, which has fq: real traffic, inside a machine of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.machine import Result, missing, run

SUITE = ["tests/net/test_bandwidth_pacing.py"]
SECONDS = 420.0


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One boot for all of it."""
    if reason := missing():
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("vm")
    return run(SUITE, folder, timeout=SECONDS)


@pytest.mark.vm
@pytest.mark.timeout(SECONDS + 180)
def test_pods_keep_to_their_limits_where_the_kernel_has_fq(result: Result) -> None:
    """Rates to 1 % for TCP, UDP, IPv4, IPv6, both ways; a thin flow stays quick; all is shown."""
    assert result.failures == {}, result.console
    assert result.release.startswith("6.1.")
    assert result.skipped == {}, result.console
    assert result.passed > 0, result.console
