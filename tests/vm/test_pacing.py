"""Pod bandwidth on Debian's kernel 6.1, which has fq: real traffic, inside a machine of it."""

from __future__ import annotations

from tests.vm.machine import Result


def test_pods_keep_to_their_limits_where_the_kernel_has_fq(result: Result) -> None:
    """Rates to 1 % for TCP, UDP, IPv4, IPv6, both ways; a thin flow stays quick; all is shown."""
    found = result.of("test_bandwidth_pacing")
    assert found.failures == {}, found.console
    assert found.release.startswith("6.1.")
    assert found.skipped == {}, found.console
    assert found.passed, found.console
