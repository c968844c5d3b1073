"""From a Pod to what its bandwidth limits, host ports and weight need of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern

from bandwidth.annotations import Direction, bits
from lb.address import ANY, Address, Family
from lb.model import HostPort, Pod
from lb.sources import objects
from lb.sources.annotations import weight
from lb.sources.notes import Notes, brief

_ENDED = ("Succeeded", "Failed")
_ANY = {"": None, "0.0.0.0": ANY[Family.IPV4], "::": ANY[Family.IPV6]}
"""What `hostIP` says where it names no one address."""
_SIDECAR = "Always"
"""The restartPolicy of an init container that goes on running (KEP-753)."""


def pod(item: objects.Pod, notes: Notes) -> Pod | None:
    """The pod; None once it has ended, for its addresses may be another's by then.

    A value that is no quantity is noted, and kept: what is in force then is not decided here.
    """
    spec, status = item.spec or objects.PodSpec(), item.status or objects.PodStatus()
    if status.phase in _ENDED:
        return None
    listed = [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
    asked = item.metadata.annotations or objects.PodAnnotations()
    for direction, text in ((Direction.EGRESS, asked.egress), (Direction.INGRESS, asked.ingress)):
        if text is not None:
            try:
                bits(text)
            except ValueError as error:
                notes.add(
                    f"{direction.annotation}: {brief(text)} {error}; "
                    "what limited the pod before goes on doing so"
                )
    return Pod(
        name=item.metadata.name,
        node=intern(spec.node_name or ""),
        addresses=notes.addresses("status.podIPs", [ip for ip in listed if ip]),
        host_network=spec.host_network or False,
        egress=asked.egress,
        ingress=asked.ingress,
        # A static pod's own name is in its mirror's annotation (kubelet, pkg/kubelet/types).
        uid=asked.mirrored or item.metadata.uid or "",
        # In the node's own network they are its sockets.
        host_ports=() if spec.host_network else tuple(dict.fromkeys(_host_ports(spec, notes))),
        weight=weight(asked.weight, notes),
    )


def _host_ports(spec: objects.PodSpec, notes: Notes) -> Iterator[HostPort]:
    """Those that can be read; of containers that run beside each other."""
    sidecars = [
        (f"spec.initContainers[{i}]", one)
        for i, one in enumerate(spec.init_containers or ())
        if one.restart_policy == _SIDECAR
    ]
    containers = [(f"spec.containers[{i}]", one) for i, one in enumerate(spec.containers or ())]
    for where, container in (*containers, *sidecars):
        for i, one in enumerate(container.ports or ()):
            if not one.host_port:
                continue
            field = f"{where}.ports[{i}]"
            port = notes.port(f"{field}.hostPort", one.host_port)
            target = notes.port(f"{field}.containerPort", one.container_port)
            protocol = notes.protocol(f"{field}.protocol", one.protocol)
            good, address = _host_ip(f"{field}.hostIP", one.host_ip or "", notes)
            if port and target and protocol and good:
                yield HostPort(port, target, protocol, address)


def _host_ip(field: str, text: str, notes: Notes) -> tuple[bool, Address | None]:
    """Can it be read, and as what?"""
    if text in _ANY:
        return True, _ANY[text]
    address = notes.address(field, text)
    return address is not None, address
