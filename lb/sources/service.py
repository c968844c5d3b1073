"""A typed Service to the model's, by kube-proxy's rules for each field. Pure; never raises.

What Kubernetes says to leave alone (headless, ExternalName, another proxy's) becomes None with a
note. Where a wrong value could only be guessed at, the API's default stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from msgspec import UNSET

from lb.address import Address, Family, Prefix, family
from lb.model import Algorithm, Dispatch, Policy, Protocol, Service, ServiceName, ServicePort, Way
from lb.sources import objects
from lb.sources.annotations import ALGORITHM, DISPATCH, FORWARDING, PREFIX, weights, word
from lb.sources.notes import ANNOTATION, Notes, brief

C = TypeVar("C", bound=Enum)

LONGEST_ANNOTATION = 256 * 1024
"""Characters; Kubernetes allows no more for all annotations of an object together."""
DEFAULT_AFFINITY, LONGEST_AFFINITY = 10800, 86400
"""Seconds; the defaults of core/v1."""


class Affinity(Enum):
    """`spec.sessionAffinity`."""

    NONE = "None"
    CLIENT_IP = "ClientIP"


class IngressMode(Enum):
    """`status.loadBalancer.ingress[].ipMode` (KEP-1860)."""

    VIP = "VIP"
    PROXY = "Proxy"


def service(name: ServiceName, item: objects.Service, notes: Notes) -> Service | None:
    """The service to be proxied, or None with the reason in `notes`."""
    spec = item.spec or objects.ServiceSpec()
    if item.metadata.labels is not None and item.metadata.labels.proxy is not UNSET:
        notes.add("another proxy serves it, says its service-proxy-name label", wrong=False)
        return None
    if spec.type == "ExternalName":
        notes.add("ExternalName: a DNS alias, nothing to balance", wrong=False)
        return None
    if not spec.cluster_ip or spec.cluster_ip == "None":
        shown = "None: headless" if spec.cluster_ip else "empty: no address was given to it"
        notes.add(f"spec.clusterIP is {shown}", wrong=False)
        return None
    cluster_ips = _cluster_ips(spec, notes)
    if not cluster_ips:
        notes.add("spec.clusterIPs: no usable address")
        return None
    external_policy = _choice(
        "spec.externalTrafficPolicy", spec.external_traffic_policy, Policy.CLUSTER, notes
    )
    written = item.metadata.annotations or {}
    annotations = _annotations(written, notes)
    source_ranges, shut = _source_ranges(spec.load_balancer_source_ranges or (), notes)
    return Service(
        name=name,
        ports=_ports(spec.ports or (), notes),
        cluster_ips=cluster_ips,
        external_ips=notes.addresses("spec.externalIPs", spec.external_ips or ()),
        load_balancer_ips=tuple(
            address for address in _ingress(item.status, notes) if family(address) not in shut
        ),
        source_ranges=source_ranges,
        internal_policy=_choice(
            "spec.internalTrafficPolicy", spec.internal_traffic_policy, Policy.CLUSTER, notes
        ),
        external_policy=external_policy,
        affinity_seconds=_affinity(spec, notes),
        health_check_node_port=(
            _health_check_node_port(spec.health_check_node_port, notes)
            if spec.type == "LoadBalancer" and external_policy is Policy.LOCAL
            else 0
        ),
        forwarding=word(Way, FORWARDING, written, notes),
        dispatch=word(Dispatch, DISPATCH, written, notes),
        algorithm=word(Algorithm, ALGORITHM, written, notes),
        weights=weights(annotations, notes),
        annotations=annotations,
    )


def _cluster_ips(spec: objects.ServiceSpec, notes: Notes) -> Mapping[Family, Address]:
    """The address of each family. `ipFamilies` decides where it is given.

    Manifests that never met an API server may leave out `ipFamilies` or `clusterIPs`: then
    they follow from the other, as the API's defaults have it.
    """
    texts = spec.cluster_ips or [spec.cluster_ip or ""]
    labels = spec.ip_families or [""] * len(texts)
    found: dict[Family, Address] = {}
    for i, (text, label) in enumerate(zip(texts, labels, strict=False)):
        field = f"spec.clusterIPs[{i}]"
        address = notes.address(field, text)
        if address is None:
            continue
        if label not in ("", family(address).label):
            notes.add(f"{field}: {text!r} is not {brief(label)}, which spec.ipFamilies[{i}] wants")
        elif family(address) in found:
            notes.add(f"{field}: {text!r} is a second address of {family(address).label}")
        else:
            found[family(address)] = address
    return found


def _ports(items: list[objects.ServicePort] | tuple[()], notes: Notes) -> tuple[ServicePort, ...]:
    """The ports that can be served; of two that clash the first."""
    ports: list[ServicePort] = []
    names: set[tuple[str, Protocol]] = set()
    numbers: set[tuple[int, Protocol]] = set()
    node_ports: set[tuple[int, Protocol]] = {(0, protocol) for protocol in Protocol}
    for i, item in enumerate(items):
        field = f"spec.ports[{i}]"
        name = notes.port_name(f"{field}.name", item.name or "")
        protocol = notes.protocol(f"{field}.protocol", item.protocol)
        number = notes.port(f"{field}.port", item.port)
        if name is None or protocol is None or number is None:
            continue
        if protocol is Protocol.SCTP:
            notes.add(f"{field}: SCTP is not served; the other ports are")
            continue
        if (name, protocol) in names:
            notes.add(f"{field}.name: {name!r} is used twice for {protocol.name}")
            continue
        if (number, protocol) in numbers:
            notes.add(f"{field}.port: {number} is used twice for {protocol.name}")
            continue
        node_port = notes.port(f"{field}.nodePort", item.node_port) if item.node_port else 0
        if node_port and (node_port, protocol) in node_ports:
            notes.add(f"{field}.nodePort: {node_port} is used twice for {protocol.name}")
            node_port = 0
        names.add((name, protocol))
        numbers.add((number, protocol))
        node_ports.add((node_port or 0, protocol))
        ports.append(ServicePort(name, protocol, number, node_port or 0))
    return tuple(ports)


def _ingress(status: objects.ServiceStatus | None, notes: Notes) -> tuple[Address, ...]:
    """The load balancer's addresses that are captured here: not those of mode Proxy, no names."""
    balancer = status.load_balancer if status is not None else None
    found: dict[Address, None] = {}
    for i, ingress in enumerate((balancer.ingress if balancer is not None else None) or ()):
        field = f"status.loadBalancer.ingress[{i}]"
        # A mode that is not known is not captured: the wrong guess would steal traffic.
        mode = _choice(
            f"{field}.ipMode", ingress.ip_mode, IngressMode.VIP, notes, IngressMode.PROXY
        )
        if ingress.ip and mode is IngressMode.VIP:
            address = notes.address(f"{field}.ip", ingress.ip)
            if address is not None:
                found[address] = None
    return tuple(found)


def _source_ranges(
    texts: list[str] | tuple[()], notes: Notes
) -> tuple[tuple[Prefix, ...], set[Family]]:
    """The ranges that are let in, and the families that must be shut instead.

    A range of length 0 opens its family, as if no list were given. A family whose only ranges are
    malformed must not be opened by that: its load balancer addresses are not served.
    """
    field = "spec.loadBalancerSourceRanges"
    found: dict[Family, list[Prefix]] = {}
    malformed: set[Family] = set()
    for i, text in enumerate(texts):
        prefix = notes.prefix(f"{field}[{i}]", text)
        if prefix is None:
            malformed.add(Family.IPV6 if ":" in text else Family.IPV4)
        else:
            found.setdefault(family(prefix[0]), []).append(prefix)
    shut = malformed - found.keys()
    for missing in sorted(shut):
        notes.add(f"{field}: no usable {missing.label} range, so no load balancer address of it")
    kept = [prefix for own in found.values() if all(p.length for p in own) for prefix in own]
    return tuple(dict.fromkeys(kept)), shut


def _affinity(spec: objects.ServiceSpec, notes: Notes) -> int:
    """Seconds of session affinity; 0 for none."""
    chosen = _choice("spec.sessionAffinity", spec.session_affinity, Affinity.NONE, notes)
    if chosen is Affinity.NONE:
        return 0
    config = spec.session_affinity_config
    client_ip = config.client_ip if config is not None else None
    seconds = client_ip.timeout_seconds if client_ip is not None else None
    if seconds is None:
        return DEFAULT_AFFINITY
    if 1 <= seconds <= LONGEST_AFFINITY:
        return seconds
    notes.add(
        f"spec.sessionAffinityConfig.clientIP.timeoutSeconds: {brief(seconds)} is not within"
        f" 1 to {LONGEST_AFFINITY}; {DEFAULT_AFFINITY} is used"
    )
    return DEFAULT_AFFINITY


def _health_check_node_port(number: int | None, notes: Notes) -> int:
    """The port on which load balancers ask for health; 0 for none."""
    return (notes.port("spec.healthCheckNodePort", number) or 0) if number else 0


def _annotations(annotations: Mapping[str, str | None], notes: Notes) -> Mapping[str, str]:
    """Our own ones, and only as long as Kubernetes would take."""
    kept = {}
    for name, value in annotations.items():
        if name.startswith(PREFIX):
            if len(name) + len(value or "") > LONGEST_ANNOTATION:
                notes.add(f"{ANNOTATION}{brief(name)} is longer than {LONGEST_ANNOTATION}")
            else:
                kept[name] = value or ""
    return kept


def _choice(field: str, value: str | None, default: C, notes: Notes, unknown: C | None = None) -> C:
    """The member that `value` names; `unknown`, or else `default`, for one that is none."""
    if not value:
        return default
    try:
        return type(default)(value)
    except ValueError:
        known = " or ".join(member.value for member in type(default))
        notes.add(f"{field}: {brief(value)} is not {known}")
        return unknown or default
