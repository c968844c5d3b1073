"""One machine for all tests of this folder: to boot it and start agents in it takes longest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.vm.machine import Result, missing, run

HERE = Path(__file__).parent
PACING = ("tests/net/test_bandwidth_pacing.py",)
SOCKETS = tuple(
    f"tests/net/test_connect.py::{one}"
    for one in (
        "test_tcp[two_nodes-pod-ipv4]",
        "test_tcp[two_nodes-pod-mapped]",
        "test_tcp[two_nodes-node-ipv6]",
        "test_udp[two_nodes-pod-ipv4-unconnected]",
        "test_udp[two_nodes-pod-ipv6-connected]",
        "test_udp[two_nodes-node-mapped-unconnected]",
        "test_every_backend_serves[two_nodes-ipv4]",
        "test_direct_after_service[two_nodes-ipv6-unconnected]",
        "test_hairpin[two_nodes-ipv4]",
        "test_protocols_are_apart[two_nodes]",
        "test_direct_after_a_dissolved_connect[two_nodes-ipv6]",
    )
)
OUTSIDE = tuple(
    f"tests/net/test_outside.py::{one}"
    for one in (
        "test_reached[node_port-web-0-TCP-ipv4-two_nodes]",
        "test_reached[node_port-web-1-UDP-ipv6-two_nodes]",
        "test_reached[balancer-web-1-TCP-ipv6-two_nodes]",
        "test_reached[balancer-web-0-UDP-ipv4-two_nodes]",
        "test_reached[external-n1-TCP-ipv4-two_nodes]",
        "test_reached[cluster-n2-TCP-ipv6-two_nodes]",
        "test_every_backend_serves[ipv4-two_nodes]",
        "test_gone[TCP-ipv4-two_nodes]",
        "test_gone[UDP-ipv6-two_nodes]",
        "test_what_is_no_service[ipv6-two_nodes]",
    )
)
"""Of each sort of traffic one test; emulated, all of them would take an hour."""
IPVS = ("tests/net/test_takeover_ipvs.py::test_no_connection_through_ipvs_meets_a_gap",)
SECONDS = 2100.0
"""Some seventeen minutes on an idle machine; under load the emulated one gets little of it."""
MOST_AGAIN = 3
log = logging.getLogger("tidegate.test")


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What became of all tests, in one boot; of a few that failed, in a second one.

    An emulated machine stands still for seconds now and then. What is wrong fails twice.
    """
    if reason := missing():
        pytest.skip(reason)
    tests = [f"'{one}'" for one in (*SOCKETS, *OUTSIDE, *IPVS, *PACING)]
    found = run(tests, tmp_path_factory.mktemp("vm"), timeout=SECONDS)
    bad = found.failed()
    if not 0 < len(bad) <= MOST_AGAIN:
        return found
    log.warning("once more, in a machine of their own: %s", ", ".join(bad))
    return found.after(
        run([f"'{one}'" for one in bad], tmp_path_factory.mktemp("again"), timeout=SECONDS)
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever of them comes first waits for the machine."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(2 * SECONDS + 360))
