"""The namespace tests themselves on Debian's kernel 6.1, inside a machine of it.

It is older, and has what many kernels lack: fq for pod bandwidth, and IPVS.
"""

from __future__ import annotations

from tests.vm.conftest import IPVS, OUTSIDE, SOCKETS
from tests.vm.machine import Result


def test_sockets_are_translated(result: Result) -> None:
    """Connects, datagrams, replies and refusals are the same on an older kernel."""
    found = result.of("test_connect")
    assert found.failures == {}, found.console
    assert found.release.startswith("6.1.")
    assert len(found.passed) == len(SOCKETS), found.console


def test_traffic_from_outside_is_balanced(result: Result) -> None:
    """So are packets: every address, backends on both nodes, and what is refused."""
    found = result.of("test_outside")
    assert found.failures == {}, found.console
    assert len(found.passed) == len(OUTSIDE), found.console


def test_pods_keep_to_their_limits_where_the_kernel_has_fq(result: Result) -> None:
    """Rates to 1 % for TCP, UDP, IPv4, IPv6, both ways; a thin flow stays quick; all is shown."""
    found = result.of("test_bandwidth_pacing")
    assert found.failures == {}, found.console
    assert found.skipped == {}, found.console
    assert found.passed, found.console


def test_virtual_servers_of_ipvs_go_without_a_gap(result: Result) -> None:
    """Connections through them go on, by connection tracking; none fails, or waits for the past."""
    found = result.of("test_takeover_ipvs")
    assert found.failures == {}, found.console
    assert found.skipped == {}, found.console
    assert len(found.passed) == len(IPVS), found.console
