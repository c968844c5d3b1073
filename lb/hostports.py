"""What the maps should say of a pod's host ports: a pure function of one pod on this node.

As the portmap plugin of CNI: on any address of the node, or on `hostIP` alone, whether or not the
pod is ready; only ever to the pod itself. "Any" are the addresses that take node ports, as Cilium
has it. Not for pods in the node's own network, whose host ports are their sockets, nor for
`lb.plan`, whose units these stand beside.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bpf.layout import BackendFlag, BackendState, Empty, FrontendKey, FrontendType, Scope
from lb.address import ANY, Address, family, one_of_each, parse
from lb.model import HostPort, Pod, Protocol, ServiceName
from lb.plan import VIEWS, Backend, Frontend, Here, Plan, Unit

_PREFIX = "pod:"
_LOOPBACK = parse("127.0.0.1")
"""As `hostIP`: for the node's own processes, as the portmap plugin has it in IPv4."""
_OTHER_LOOPBACK = (_LOOPBACK[:13], parse("::1"))
"""How those begin that are not served."""


def service_name(namespace: str, name: str) -> ServiceName:
    """Under which a pod's units stand: no service can be called so."""
    return ServiceName(namespace, f"{_PREFIX}{name}")


def is_pod(name: ServiceName) -> bool:
    """Is it such a name?"""
    return name.name.startswith(_PREFIX)


def why_not(port: HostPort) -> str:
    """Why a host port cannot be served, in words; "" if it can."""
    if port.protocol is Protocol.SCTP:
        return f"hostPort {port.port} over SCTP is not served"
    at = port.address
    if at is not None and at != _LOOPBACK and at.startswith(_OTHER_LOOPBACK):
        return f"hostPort {port.port}: of loopback addresses only 127.0.0.1 is served as hostIP"
    return ""


def shown(name: ServiceName) -> tuple[str, ServiceName]:
    """The kind and the name of the object that stands under a name: `Service` or `Pod`."""
    if not is_pod(name):
        return "Service", name
    return "Pod", ServiceName(name.namespace, name.name.removeprefix(_PREFIX))


def feature(pods: Collection[Pod], *, is_on: bool, waits: bool) -> dict[str, Any]:
    """The entry in `status`, for these pods with host ports. `waits`: there may be more."""
    if not is_on:
        return {"state": "off", "reason": "no --host-ports"}
    ports = [port for pod in pods for port in pod.host_ports if not why_not(port)]
    answer: dict[str, Any] = {"state": "on", "pods": len(pods), "ports": len(ports)}
    if not waits:
        return answer
    reason = "pods of this node cannot be read yet: may the agent list and watch them?"
    return answer | {"state": "degraded", "reason": reason}


def plans(name: ServiceName, pod: Pod, here: Here) -> tuple[Plan, ...]:
    """The plans of all units of a pod, one for each host port and family."""
    found: dict[Unit, Plan] = {}
    for port in pod.host_ports:
        for address in one_of_each(pod.addresses):
            if why_not(port) or (port.address and family(port.address) != family(address)):
                continue
            one = _plan(name, port, address, here)
            found.setdefault(one.unit, one)
    return tuple(found.values())


def _plan(name: ServiceName, port: HostPort, address: Address, here: Here) -> Plan:
    which = family(address)
    at = port.address or ANY[which]
    scope = {ANY[which]: Scope.NODE, _LOOPBACK: Scope.LOOPBACK}.get(at, Scope.ADDRESS)
    key = FrontendKey(at, port.port, port.protocol, scope).pack()
    label = str(port.port) if scope is Scope.NODE else f"{at.hex()}-{port.port}"
    backend = Backend(
        address, port.target, BackendState.READY, VIEWS | BackendFlag.HERE, here.name, here.zone
    )
    return Plan(
        unit=Unit(name, label, port.protocol, which),
        frontends=(Frontend(key, FrontendType.HOST_PORT),),
        backends=(backend,),
        empty=(Empty.REFUSE, Empty.REFUSE, Empty.REFUSE),
        affinity_seconds=0,
        ranges=(),
    )
