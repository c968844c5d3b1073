"""What kube-proxy leaves in mode ipvs, on Debian's kernel 6.1, which has IPVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.machine import Result, missing, run

SUITE = ["tests/net/test_takeover_ipvs.py", "-k", "through_ipvs"]
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
def test_virtual_servers_of_ipvs_go_without_a_gap(result: Result) -> None:
    """Connections through them go on to their end; sets, rules and the device go as well."""
    assert result.failures == {}, result.console
    assert result.release.startswith("6.1.")
    assert result.skipped == {}, result.console
    assert result.passed > 0, result.console
