"""East-west on Debian's kernel 6.1: the namespace tests themselves, run inside a machine of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.machine import Result, missing, run

SUITE = ["tests/net/test_connect.py", "-k", "one_node"]
"""What takes three minutes there; `run` takes any other tests of tests/net as well."""
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
def test_sockets_are_translated_on_kernel_6_1(result: Result) -> None:
    """Connects, datagrams, replies, refusals and silence are the same on an older kernel."""
    assert result.failures == {}, result.console
    assert result.release.startswith("6.1.")
    assert result.passed > 0, result.console
