"""Kubernetes objects as plain dictionaries, and a directory of manifests to put them in.

The builders are pure; what is not given is left out, so that defaults are the product's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


def port(
    number: int, *, name: str = "", protocol: str = "TCP", node_port: int | None = None
) -> Manifest:
    """One of a service's ports."""
    return _given(port=number, name=name or None, protocol=protocol, nodePort=node_port)


def ingress(ip: str, mode: str | None = None) -> Manifest:
    """A load balancer's address; `mode` is VIP or Proxy."""
    return _given(ip=ip, ipMode=mode)


def service(
    name: str,
    *,
    cluster_ips: Iterable[str],
    ports: Iterable[Manifest],
    namespace: str = "default",
    kind: str | None = None,
    external_ips: Iterable[str] = (),
    load_balancer: Iterable[Manifest] = (),
    internal_policy: str | None = None,
    external_policy: str | None = None,
    affinity_seconds: int | None = None,
    source_ranges: Iterable[str] = (),
    health_check_node_port: int | None = None,
    traffic_distribution: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A Service; `kind` is its spec.type, `load_balancer` its status. Families follow the IPs."""
    ips = list(cluster_ips)
    balancer = list(load_balancer)
    affinity = (
        None if affinity_seconds is None else {"clientIP": {"timeoutSeconds": affinity_seconds}}
    )
    spec = _given(
        type=kind,
        clusterIP=ips[0] if ips else None,
        clusterIPs=ips or None,
        ipFamilies=["IPv6" if ":" in ip else "IPv4" for ip in ips] or None,
        ports=list(ports),
        externalIPs=list(external_ips) or None,
        internalTrafficPolicy=internal_policy,
        externalTrafficPolicy=external_policy,
        sessionAffinity="ClientIP" if affinity else None,
        sessionAffinityConfig=affinity,
        loadBalancerSourceRanges=list(source_ranges) or None,
        healthCheckNodePort=health_check_node_port,
        trafficDistribution=traffic_distribution,
    )
    status = {"loadBalancer": {"ingress": balancer}} if balancer else None
    metadata = _metadata(name, namespace, labels, annotations)
    return _given(apiVersion="v1", kind="Service", metadata=metadata, spec=spec, status=status)


def endpoint(
    *addresses: str,
    node: str | None = None,
    zone: str | None = None,
    ready: bool | None = None,
    serving: bool | None = None,
    terminating: bool | None = None,
    zone_hints: Iterable[str] = (),
    node_hints: Iterable[str] = (),
    pod: str | None = None,
) -> Manifest:
    """One endpoint of a slice; a condition of None is left out."""
    hints = _given(
        forZones=[{"name": name} for name in zone_hints] or None,
        forNodes=[{"name": name} for name in node_hints] or None,
    )
    return _given(
        addresses=list(addresses),
        conditions=_given(ready=ready, serving=serving, terminating=terminating) or None,
        nodeName=node,
        zone=zone,
        hints=hints or None,
        targetRef=None if pod is None else {"kind": "Pod", "name": pod, "namespace": "default"},
    )


def slice_port(number: int | None, *, name: str = "", protocol: str = "TCP") -> Manifest:
    """One of a slice's ports; it belongs to the service's port of the same name and protocol."""
    return _given(port=number, name=name, protocol=protocol)


def endpoint_slice(
    service: str,
    *,
    endpoints: Iterable[Manifest],
    ports: Iterable[Manifest],
    name: str | None = None,
    namespace: str = "default",
    family: str = "IPv4",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """An EndpointSlice of a service; `family` is IPv4 or IPv6. Named SERVICE-FAMILY by default."""
    owner = {"kubernetes.io/service-name": service} | dict(labels or {})
    return _given(
        apiVersion="discovery.k8s.io/v1",
        kind="EndpointSlice",
        metadata=_metadata(name or f"{service}-{family.lower()}", namespace, owner, annotations),
        addressType=family,
        ports=list(ports),
        endpoints=list(endpoints),
    )


def node(
    name: str,
    *,
    addresses: Iterable[str] = (),
    external_addresses: Iterable[str] = (),
    pod_cidrs: Iterable[str] = (),
    zone: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A Node; `addresses` are its InternalIPs."""
    cidrs = list(pod_cidrs)
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    listed += [{"type": "ExternalIP", "address": address} for address in external_addresses]
    labels = {"kubernetes.io/hostname": name} | _given(**{"topology.kubernetes.io/zone": zone})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _metadata(name, None, labels, annotations),
        "spec": _given(podCIDR=cidrs[0] if cidrs else None, podCIDRs=cidrs or None),
        "status": {"addresses": listed},
    }


def pod(
    name: str,
    *,
    node: str,
    addresses: Iterable[str] = (),
    namespace: str = "default",
    egress: str | None = None,
    ingress: str | None = None,
    host_network: bool | None = None,
    phase: str = "Running",
    uid: str | None = None,
    ports: Iterable[Manifest] = (),
    weight: str | None = None,
) -> Manifest:
    """A Pod; `egress`, `ingress` and `weight` are annotations, `ports` its container's."""
    listed = list(addresses)
    asked = {
        "kubernetes.io/egress-bandwidth": egress, "kubernetes.io/ingress-bandwidth": ingress,
        "tidegate.io/weight": weight,
    }  # fmt: skip
    ips = [{"ip": address} for address in listed] or None
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(name, namespace, None, _given(**asked)) | _given(uid=uid),
        "spec": _given(
            nodeName=node,
            hostNetwork=host_network,
            containers=[{"name": "main", "ports": list(ports)}] if ports else None,
        ),
        "status": _given(phase=phase, podIP=listed[0] if listed else None, podIPs=ips),
    }


def host_port(
    number: int, target: int, *, protocol: str = "TCP", address: str | None = None
) -> Manifest:
    """A port of a container that its node shows as `number`; `address` is the hostIP."""
    return _given(containerPort=target, hostPort=number, protocol=protocol, hostIP=address)


class Manifests:
    """A directory that an agent watches; a file is there whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, *objects: Manifest) -> Path:
        """Put objects into one file: YAML documents, or a List when `name` ends in .json.

        JSON is written ten times faster: for benchmarks.
        """
        if name.endswith(".json"):
            return self.text(
                name, json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
            )
        return self.text(name, yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=False))

    def text(self, name: str, text: str) -> Path:
        """Put any text, also a wrong one, into a file."""
        path = self.directory / name
        # Hidden and without an ending that a source would read, until it is complete.
        part = self.directory / f".{name}.part"
        part.write_text(text)
        return part.rename(path)

    def remove(self, name: str) -> None:
        """Take a file away."""
        (self.directory / name).unlink()


def _metadata(
    name: str,
    namespace: str | None,
    labels: Mapping[str, str] | None,
    annotations: Mapping[str, str] | None,
) -> Manifest:
    return _given(
        name=name,
        namespace=namespace,
        labels=dict(labels) if labels else None,
        annotations=dict(annotations) if annotations else None,
    )


def _given(**fields: Any) -> Manifest:
    return {name: value for name, value in fields.items() if value is not None}
