"""Services on Debian's kernel 6.1: the namespace tests themselves, run inside a machine of it."""

from __future__ import annotations

from tests.vm.conftest import OUTSIDE, SOCKETS
from tests.vm.machine import Result


def test_sockets_are_translated_on_kernel_6_1(result: Result) -> None:
    """Connects, datagrams, replies and refusals are the same on an older kernel."""
    found = result.of("test_connect")
    assert found.failures == {}, found.console
    assert found.release.startswith("6.1.")
    assert len(found.passed) == len(SOCKETS), found.console


def test_traffic_from_outside_is_balanced_on_kernel_6_1(result: Result) -> None:
    """So are packets: every address, backends on both nodes, and what is refused."""
    found = result.of("test_outside")
    assert found.failures == {}, found.console
    assert len(found.passed) == len(OUTSIDE), found.console
