"""Kubernetes objects, as far as anything here reads them: checked for types, nothing more.

Unknown fields are ignored, and a field that is absent, null or empty is the same, as in the API's
own Go structs. What the values mean is decided in `lb.sources.convert`. Field names and wrappers:
the API reference of core/v1 and discovery.k8s.io/v1.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType, field


class Object(msgspec.Struct, rename="camel", gc=False):
    """Base of all structs here: camelCase in JSON, no garbage collector tracking."""


class ServiceLabels(Object):
    """The one label of a Service that is read; its presence counts, whatever it holds."""

    proxy: str | UnsetType | None = field(
        name="service.kubernetes.io/service-proxy-name", default=UNSET
    )


class ServiceMeta(Object):
    """`metadata` of a Service."""

    name: str = ""
    namespace: str | None = None
    labels: ServiceLabels | None = None
    annotations: dict[str, str | None] | None = None


class ServicePort(Object):
    """`spec.ports[]` of a Service."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    node_port: int | None = None


class ClientIP(Object):
    """`spec.sessionAffinityConfig.clientIP`."""

    timeout_seconds: int | None = None


class AffinityConfig(Object):
    """`spec.sessionAffinityConfig`."""

    client_ip: ClientIP | None = field(name="clientIP", default=None)


class ServiceSpec(Object):
    """`spec` of a Service."""

    type: str | None = None
    ports: list[ServicePort] | None = None
    cluster_ip: str | None = field(name="clusterIP", default=None)
    cluster_ips: list[str] | None = field(name="clusterIPs", default=None)
    ip_families: list[str] | None = None
    external_ips: list[str] | None = field(name="externalIPs", default=None)
    load_balancer_source_ranges: list[str] | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    session_affinity: str | None = None
    session_affinity_config: AffinityConfig | None = None
    health_check_node_port: int | None = None


class Ingress(Object):
    """`status.loadBalancer.ingress[]`."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancer(Object):
    """`status.loadBalancer`."""

    ingress: list[Ingress] | None = None


class ServiceStatus(Object):
    """`status` of a Service."""

    load_balancer: LoadBalancer | None = None


class Service(Object):
    """A Service of v1."""

    metadata: ServiceMeta
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class SliceLabels(Object):
    """The labels of an EndpointSlice that are read."""

    service: str | None = field(name="kubernetes.io/service-name", default=None)
    headless: str | UnsetType | None = field(name="service.kubernetes.io/headless", default=UNSET)


class SliceAnnotations(Object):
    """The annotation of an EndpointSlice that is read."""

    trigger_time: str | None = field(
        name="endpoints.kubernetes.io/last-change-trigger-time", default=None
    )


class SliceMeta(Object):
    """`metadata` of an EndpointSlice."""

    name: str = ""
    namespace: str | None = None
    labels: SliceLabels | None = None
    annotations: SliceAnnotations | None = None


class Conditions(Object):
    """`endpoints[].conditions`."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Object):
    """`endpoints[].hints.forZones[]` and `forNodes[]`."""

    name: str = ""


class Hints(Object):
    """`endpoints[].hints`."""

    for_zones: list[Hint] | None = None
    for_nodes: list[Hint] | None = None


class Target(Object):
    """`endpoints[].targetRef`."""

    kind: str | None = None
    name: str | None = None


class Endpoint(Object):
    """`endpoints[]`."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: Hints | None = None
    target_ref: Target | None = None


class EndpointPort(Object):
    """`ports[]` of an EndpointSlice."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(Object):
    """An EndpointSlice of discovery.k8s.io/v1."""

    metadata: SliceMeta
    address_type: str | None = None
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class NodeLabels(Object):
    """The label of a Node that is read."""

    zone: str | None = field(name="topology.kubernetes.io/zone", default=None)


class NodeMeta(Object):
    """`metadata` of a Node, which has no namespace."""

    name: str = ""
    deletion_timestamp: str | None = None
    labels: NodeLabels | None = None


class Taint(Object):
    """`spec.taints[]` of a Node."""

    key: str = ""


class NodeSpec(Object):
    """`spec` of a Node."""

    pod_cidr: str | None = field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = field(name="podCIDRs", default=None)
    taints: list[Taint] | None = None


class NodeAddress(Object):
    """`status.addresses[]` of a Node."""

    type: str | None = None
    address: str | None = None


class NodeStatus(Object):
    """`status` of a Node."""

    addresses: list[NodeAddress] | None = None


class Node(Object):
    """A Node of v1."""

    metadata: NodeMeta
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class ServiceCIDRMeta(Object):
    """`metadata` of a ServiceCIDR, which has no namespace."""

    name: str = ""


class ServiceCIDRSpec(Object):
    """`spec` of a ServiceCIDR."""

    cidrs: list[str] | None = None


class ServiceCIDR(Object):
    """A ServiceCIDR of networking.k8s.io/v1."""

    metadata: ServiceCIDRMeta
    spec: ServiceCIDRSpec | None = None


class PodAnnotations(Object):
    """The annotations of a Pod that are read."""

    egress: str | None = field(name="kubernetes.io/egress-bandwidth", default=None)
    ingress: str | None = field(name="kubernetes.io/ingress-bandwidth", default=None)
    mirrored: str | None = field(name="kubernetes.io/config.mirror", default=None)
    weight: str | None = field(name="tidegate.io/weight", default=None)


class PodMeta(Object):
    """`metadata` of a Pod."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    annotations: PodAnnotations | None = None


class ContainerPort(Object):
    """`ports[]` of a container."""

    container_port: int | None = None
    host_port: int | None = None
    host_ip: str | None = field(name="hostIP", default=None)
    protocol: str | None = None


class Container(Object):
    """`containers[]` and `initContainers[]` of a Pod."""

    ports: list[ContainerPort] | None = None
    restart_policy: str | None = None


class PodSpec(Object):
    """`spec` of a Pod."""

    node_name: str | None = None
    host_network: bool | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class PodIP(Object):
    """`status.podIPs[]`."""

    ip: str | None = None


class PodStatus(Object):
    """`status` of a Pod."""

    phase: str | None = None
    pod_ip: str | None = field(name="podIP", default=None)
    pod_ips: list[PodIP] | None = field(name="podIPs", default=None)


class Pod(Object):
    """A Pod of v1."""

    metadata: PodMeta
    spec: PodSpec | None = None
    status: PodStatus | None = None


Typed = Service | EndpointSlice | Node | ServiceCIDR | Pod

TYPES: dict[tuple[str, str], type[Typed]] = {
    ("v1", "Service"): Service,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSlice,
    ("v1", "Node"): Node,
    ("networking.k8s.io/v1", "ServiceCIDR"): ServiceCIDR,
    ("v1", "Pod"): Pod,
}
"""By apiVersion and kind."""

LISTS: dict[tuple[str, str], tuple[str, str]] = {
    (version, f"{kind}List"): (version, kind) for version, kind in TYPES
}
"""Typed lists; their items need not repeat apiVersion and kind."""
