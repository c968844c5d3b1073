"""The suite on Debian's kernel 6.1: the namespace tests themselves, inside a machine of it.

One file, and so one machine: to boot it and to start agents in it takes longest.
"""

from __future__ import annotations

import pytest

from tests.vm.machine import Result, missing, run

TAKEOVER = ("tests/net/test_takeover_ipvs.py::test_no_connection_through_ipvs_meets_a_gap",)
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
SECONDS = 900.0
"""Some four minutes on an idle machine; under load the emulated one gets little of it."""
pytestmark = [pytest.mark.vm, pytest.mark.timeout(SECONDS + 180)]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What became of all tests, in one boot."""
    if reason := missing():
        pytest.skip(reason)
    tests = [f"'{one}'" for one in (*TAKEOVER, *SOCKETS, *OUTSIDE, *PACING)]
    return run(tests, tmp_path_factory.mktemp("vm"), timeout=SECONDS)


def test_pods_keep_to_their_limits_where_the_kernel_has_fq(result: Result) -> None:
    """Rates to 1 % for TCP, UDP, IPv4, IPv6, both ways; a thin flow stays quick; all is shown."""
    found = result.of("test_bandwidth_pacing")
    assert found.failures == {}, found.console
    assert found.release.startswith("6.1.")
    assert found.skipped == {}, found.console
    assert found.passed, found.console


def test_sockets_are_translated(result: Result) -> None:
    """Connects, datagrams, replies and refusals are the same on an older kernel."""
    found = result.of("test_connect")
    assert found.failures == {}, found.console
    assert len(found.passed) == len(SOCKETS), found.console


def test_traffic_from_outside_is_balanced(result: Result) -> None:
    """So are packets: every address, backends on both nodes, and what is refused."""
    found = result.of("test_outside")
    assert found.failures == {}, found.console
    assert len(found.passed) == len(OUTSIDE), found.console


def test_virtual_servers_of_ipvs_go_without_a_gap(result: Result) -> None:
    """Connections through them go on to their end; sets, rules and the device go as well."""
    found = result.of("test_takeover_ipvs")
    assert found.failures == {}, found.console
    assert len(found.passed) == len(TAKEOVER), found.console
