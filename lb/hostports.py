"""What the maps should say of a pod's host ports: a pure function of one pod on this node.

As the portmap plugin of CNI: on any address of the node, or on `hostIP` alone, whether or not the
pod is ready; only ever to the pod itself. Not for pods in the node's own network, whose host ports
are their sockets, nor for `lb.plan`, whose units these stand beside.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bpf.layout import BackendFlag, BackendState, Empty, FrontendKey, FrontendType, Scope
from lb.address import ANY, Address, family
from lb.model import Protocol, ServiceName
from lb.plan import VIEWS, Backend, Frontend, Here, Plan, Unit

_LOOPBACK = (Address(bytes(10) + b"\xff\xff\x7f"), Address(bytes(15) + b"\1"))
"""How a loopback address begins, 127.0.0.0/8 and ::1."""


class HostPort(NamedTuple):
    """`ports[]` of a container with a `hostPort`. `address`: its `hostIP`, None for any."""

    port: int
    target: int
    protocol: Protocol
    address: Address | None = None


class Exposed(msgspec.Struct, frozen=True, gc=False):
    """A pod of this node with host ports. `addresses`: its own, at most one of each family."""

    namespace: str
    name: str
    addresses: tuple[Address, ...]
    ports: tuple[HostPort, ...]


def service_name(namespace: str, name: str) -> ServiceName:
    """Under which a pod's units stand: no service can be called so."""
    return ServiceName(namespace, f"pod:{name}")


def why_not(port: HostPort) -> str:
    """Why a host port cannot be served, in words; "" if it can."""
    if port.protocol is Protocol.SCTP:
        return "hostPort over SCTP is not served"
    if port.address is not None and port.address.startswith(_LOOPBACK):
        # A frontend there would also catch what pods send to their own loopback.
        return "hostIP is a loopback address: name one of the node's own, or none"
    return ""


def plans(pod: Exposed, here: Here) -> tuple[Plan, ...]:
    """The plans of all units of a pod, one for each host port and family."""
    found: dict[Unit, Plan] = {}
    for port in pod.ports:
        for address in pod.addresses:
            if why_not(port) or (port.address and family(port.address) != family(address)):
                continue
            one = _plan(pod, port, address, here)
            found.setdefault(one.unit, one)
    return tuple(found.values())


def _plan(pod: Exposed, port: HostPort, address: Address, here: Here) -> Plan:
    which = family(address)
    at = port.address or ANY[which]
    scope = Scope.NODE if at == ANY[which] else Scope.ADDRESS
    key = FrontendKey(at, port.port, port.protocol, scope).pack()
    label = str(port.port) if scope is Scope.NODE else f"{at.hex()}-{port.port}"
    backend = Backend(
        address, port.target, BackendState.READY, VIEWS | BackendFlag.HERE, here.name, here.zone
    )
    return Plan(
        unit=Unit(service_name(pod.namespace, pod.name), label, port.protocol, which),
        frontends=(Frontend(key, FrontendType.HOST_PORT),),
        backends=(backend,),
        empty=(Empty.REFUSE, Empty.REFUSE, Empty.REFUSE),
        affinity_seconds=0,
        ranges=(),
    )
