"""What is wrong with a configuration: kube-proxy's own rules, all of them at once.

Source: `pkg/proxy/apis/config/validation` of Kubernetes 1.36. Pure; the paths are the fields' own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lb.address import family, parse, parse_prefix
from lb.errors import BadAddress
from lb.kubeproxy.v1alpha1 import Configuration

MODES = ("iptables", "ipvs", "nftables")
LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
PRIMARY = "primary"


class Fault(NamedTuple):
    """One field that cannot be used; `text` says what it must be."""

    path: str
    value: object
    text: str


def faults(found: Configuration) -> tuple[Fault, ...]:
    """Of a configuration with its defaults; none: it is good."""
    return (
        *_numbers(found),
        *_periods(found),
        *_addresses(found),
        *_words(found),
        *_local(found),
    )


def _numbers(found: Configuration) -> Iterator[Fault]:
    technologies = {"iptables": found.iptables.masquerade_bit}
    if found.mode == "nftables":
        technologies["nftables"] = found.nftables.masquerade_bit
    for name, bit in technologies.items():
        if not 0 <= bit <= 31:
            yield Fault(f"{name}.masqueradeBit", bit, "must be within 0 and 31")
    if not -1000 <= found.oom_score_adj <= 1000:
        yield Fault("oomScoreAdj", found.oom_score_adj, "must be within -1000 and 1000")
    for path, number in (
        ("conntrack.maxPerCore", found.conntrack.max_per_core),
        ("conntrack.min", found.conntrack.min),
        ("clientConnection.burst", found.client_connection.burst),
    ):
        if number < 0:
            yield Fault(path, number, "must be 0 or more")


def _periods(found: Configuration) -> Iterator[Fault]:
    if found.config_sync_period <= 0:
        yield Fault("configSyncPeriod", found.config_sync_period, "must be above 0")
    part = found.technology
    own = found.mode if found.mode in MODES else "iptables"
    if part.sync_period <= 0:
        yield Fault(f"{own}.syncPeriod", part.sync_period, "must be above 0")
    if not 0 <= part.min_sync_period <= max(part.sync_period, 0):
        text = f"must be within 0 and syncPeriod ({part.sync_period})"
        yield Fault(f"{own}.minSyncPeriod", part.min_sync_period, text)
    conntrack, ipvs = found.conntrack, found.ipvs
    for path, span in (
        ("conntrack.tcpEstablishedTimeout", conntrack.tcp_established_timeout),
        ("conntrack.tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout),
        ("conntrack.udpTimeout", conntrack.udp_timeout),
        ("conntrack.udpStreamTimeout", conntrack.udp_stream_timeout),
        ("ipvs.tcpTimeout", ipvs.tcp_timeout),
        ("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout),
        ("ipvs.udpTimeout", ipvs.udp_timeout),
    ):
        if span < 0 and (found.mode == "ipvs" or not path.startswith("ipvs.")):
            yield Fault(path, span, "must be 0 or more")


def _addresses(found: Configuration) -> Iterator[Fault]:
    if not _is_address(found.bind_address):
        yield Fault("bindAddress", found.bind_address, "must be an IP address")
    for path, text in (
        ("healthzBindAddress", found.healthz_bind_address),
        ("metricsBindAddress", found.metrics_bind_address),
    ):
        if text and not _is_listener(text):  # empty: switched off by a flag
            yield Fault(path, text, "must be IP:PORT")
    for i, text in enumerate(found.node_port_addresses):
        path = f"nodePortAddresses[{i}]"
        if text == PRIMARY:
            if len(found.node_port_addresses) > 1:
                yield Fault(path, text, "must stand alone, without CIDRs")
        elif not _is_prefix(text):
            yield Fault(path, text, "must be a CIDR, or `primary` alone")
    for i, text in enumerate(found.ipvs.exclude_cidrs if found.mode == "ipvs" else ()):
        if not _is_prefix(text):
            yield Fault(f"ipvs.excludeCIDRs[{i}]", text, "must be a CIDR")


def _words(found: Configuration) -> Iterator[Fault]:
    if found.mode not in MODES:
        yield Fault("mode", found.mode, f"must be one of {', '.join(MODES)}, or empty")
    if found.logging.format not in ("text", "json"):
        yield Fault("logging.format", found.logging.format, "must be text or json")
    if found.logging.verbosity < 0:
        yield Fault("logging.verbosity", found.logging.verbosity, "must be 0 or more")
    ports = re.fullmatch(r"(\d+)(?:[-+](\d+))?", found.port_range, re.ASCII)
    if found.port_range and not ports:
        yield Fault("portRange", found.port_range, "must be FIRST-LAST")


def _local(found: Configuration) -> Iterator[Fault]:
    cidrs = split_cidrs(found.cluster_cidr)
    match found.detect_local_mode:
        case "ClusterCIDR":
            yield from _cidrs(cidrs, found.cluster_cidr)
        case "NodeCIDR":
            pass
        case "BridgeInterface":
            if not found.detect_local.bridge_interface:
                yield Fault("detectLocal.bridgeInterface", "", "must not be empty in this mode")
        case "InterfaceNamePrefix":
            if not found.detect_local.interface_name_prefix:
                yield Fault("detectLocal.interfaceNamePrefix", "", "must not be empty in this mode")
        case mode:
            yield Fault("detectLocalMode", mode, f"must be one of {', '.join(LOCAL_MODES)}")


def _cidrs(cidrs: Sequence[str], text: str) -> Iterator[Fault]:
    bad = [one for one in cidrs if not _is_prefix(one)]
    families = {family(parse_prefix(one)[0]) for one in cidrs if one not in bad}
    if bad:
        yield Fault("clusterCIDR", bad[0], "must be a CIDR")
    elif len(cidrs) != len(families):
        yield Fault("clusterCIDR", text, "must be one CIDR, or one of each family")


def split_cidrs(text: str) -> tuple[str, ...]:
    """The parts of `clusterCIDR`."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _is_address(text: str) -> bool:
    try:
        parse(text)
    except BadAddress:
        return False
    return True


def _is_prefix(text: str) -> bool:
    try:
        parse_prefix(text)
    except BadAddress:
        return False
    return True


def _is_listener(text: str) -> bool:
    address, colon, port = text.rpartition(":")
    good = bool(colon) and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    is_v6 = ":" in address
    wrapped = address.startswith("[") and address.endswith("]")
    return good and is_v6 <= wrapped and _is_address(address.strip("[]"))
