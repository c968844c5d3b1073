"""What a configuration in force means to an agent: a part of its `lb.config.Settings`."""

from __future__ import annotations

from typing import Any, TypedDict

from lb.address import Address, parse, parse_prefix
from lb.config import Listen, listen
from lb.kubeproxy import encode
from lb.kubeproxy.v1alpha1 import Configuration
from lb.kubeproxy.validate import split_cidrs
from lb.local import Detection, Mode


class Part(TypedDict):
    """Fields of `Settings`, with their values."""

    kubeconfig: str
    bind_address: Address | None
    proxy_mode: str
    localhost_nodeports: bool
    nodeport_addresses: tuple[str, ...]
    external_ips: bool
    masquerade_all: bool
    detection: Detection
    metrics: Listen | None
    healthz: Listen | None
    must_listen: bool
    stale_seconds: float
    configuration: dict[str, Any]


def settings(found: Configuration) -> Part:
    """Of a configuration without faults."""
    bind = parse(found.bind_address)
    return Part(
        kubeconfig=found.client_connection.kubeconfig,
        bind_address=bind if any(bind[12:]) or any(bind[:10]) else None,
        proxy_mode=found.mode,
        localhost_nodeports=found.iptables.localhost_node_ports,
        nodeport_addresses=found.node_port_addresses,
        external_ips=found.feature_gates.get("AllowServiceExternalIPs", True),
        masquerade_all=found.masquerade_all,
        detection=detection(found),
        metrics=listen(found.metrics_bind_address, "metricsBindAddress"),
        healthz=listen(found.healthz_bind_address, "healthzBindAddress"),
        must_listen=found.bind_address_hard_fail,
        stale_seconds=2 * found.technology.sync_period.seconds,
        configuration=encode.plain(found),
    )


def detection(found: Configuration) -> Detection:
    """How pods are told apart."""
    mode = Mode(found.detect_local_mode)
    names = {
        Mode.BRIDGE: found.detect_local.bridge_interface,
        Mode.PREFIX: found.detect_local.interface_name_prefix,
    }
    # In other modes the field may hold anything, and is not read.
    cidrs = split_cidrs(found.cluster_cidr) if mode is Mode.CLUSTER_CIDR else ()
    return Detection(mode, tuple(map(parse_prefix, cidrs)), names.get(mode, ""))
