"""From the fields `conntrack.*` to settings of the kernel, as kube-proxy has it. Pure.

Only fields that somebody gave a value count: connections to services are not tracked here, so that
kube-proxy's own defaults would change a node for nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from lb.kubeproxy.v1alpha1 import Conntrack

CAP = 1 << 20
"""The most that a number of CPUs makes of `maxPerCore` (kube-proxy 1.36); it wins over `min`."""
MAX = "nf_conntrack_max"
_LIBERAL = "nf_conntrack_tcp_be_liberal"
_TIMEOUTS = {
    "tcpEstablishedTimeout": "nf_conntrack_tcp_timeout_established",
    "tcpCloseWaitTimeout": "nf_conntrack_tcp_timeout_close_wait",
    "udpTimeout": "nf_conntrack_udp_timeout",
    "udpStreamTimeout": "nf_conntrack_udp_timeout_stream",
}


def wanted(found: Conntrack, asked: Collection[str], cpus: int) -> dict[str, int]:
    """Values of settings below net.netfilter, by name; zero in a field leaves its setting alone."""
    values: dict[str, int] = {}
    if {"maxPerCore", "min"} & set(asked) and found.max_per_core:
        scaled = found.max_per_core * cpus
        values[MAX] = CAP if scaled > CAP else max(scaled, found.min)
    spans = {
        "tcpEstablishedTimeout": found.tcp_established_timeout,
        "tcpCloseWaitTimeout": found.tcp_close_wait_timeout,
        "udpTimeout": found.udp_timeout,
        "udpStreamTimeout": found.udp_stream_timeout,
    }
    for name, span in spans.items():
        if name in asked and (seconds := int(span.seconds)):
            values[_TIMEOUTS[name]] = seconds
    if "tcpBeLiberal" in asked and found.tcp_be_liberal:
        values[_LIBERAL] = 1
    return values
