"""The pods that a source delivers: whose an address is, their own weights, their host ports.

With manifests they are the cluster's, with an API server those of this node, where it is asked
for pods at all. Of most only the addresses are kept. Pure. Not for bandwidth limits, which
look at them in a thread of their own (`lb.limits.pods`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from msgspec.structs import replace

from lb.address import Address
from lb.hostports import service_name, why_not
from lb.model import Change, Pod, Service, ServiceName
from lb.sources.annotations import WEIGHT
from lb.sources.notes import ANNOTATION

NOT_KNOWN_TO_ALL = (
    f"{ANNOTATION}{WEIGHT}: a pod's own is read with --manifests only, for agents of an API server "
    "know the pods of their own nodes, and all have to choose alike: list it on the Service"
)


class Moved(NamedTuple):
    """What a change of a pod touched. `ports`: it with its host ports, before and now."""

    ports: tuple[Pod | None, Pod | None] | None
    weight: bool


class Pods:
    """`host_ports`: are they served? `weights`: do all nodes know all pods, so that these count?"""

    def __init__(self, node_name: str, *, host_ports: bool, weights: bool) -> None:
        self._node_name, self._host_ports, self._weights = node_name, host_ports, weights
        self.exposed: dict[ServiceName, Pod] = {}
        """Those of this node with host ports, by the name of the service that each stands for."""
        self._addresses: dict[tuple[str, str], tuple[Address, ...]] = {}
        self._weighed: dict[str, dict[bytes | int, int]] = {}

    def take(self, change: Change) -> Moved:
        """The pod is this now, or gone."""
        namespace, name = change.key.namespace, change.key.name
        pod = change.value if isinstance(change.value, Pod) else None
        # On the host's network its addresses are the node's.
        if pod is not None and pod.addresses and not pod.host_network:
            self._addresses[namespace, name] = pod.addresses
        else:
            self._addresses.pop((namespace, name), None)
        return Moved(self._expose(service_name(namespace, name), pod), self._weigh(change, pod))

    def unfit(self, change: Change) -> list[str]:
        """What of a pod cannot be served here, in words."""
        pod = change.value
        if not isinstance(pod, Pod):
            return []
        ports = pod.host_ports if self._is_exposed(pod) else ()
        found = [why for port in ports if (why := why_not(port))]
        return found + [NOT_KNOWN_TO_ALL] * (pod.weight > 0 and not self._weights)

    def weighed(self, service: Service) -> Service:
        """With the weights that pods of its namespace give themselves, where it names none."""
        own = self._weighed.get(service.name.namespace)
        if not own:
            return service
        return replace(service, weights=ChainMap(dict(service.weights), own))

    def names(self) -> Iterator[tuple[Address, str]]:
        """Addresses, and whose they are as NAMESPACE/NAME."""
        for (namespace, name), addresses in self._addresses.items():
            for address in addresses:
                yield address, f"{namespace}/{name}"

    def _is_exposed(self, pod: Pod) -> bool:
        return self._host_ports and pod.node == self._node_name and bool(pod.host_ports)

    def _expose(self, name: ServiceName, pod: Pod | None) -> tuple[Pod | None, Pod | None] | None:
        new = pod if pod is not None and self._is_exposed(pod) else None
        old = self.exposed.pop(name, None)
        if new is not None:
            self.exposed[name] = new
        return (old, new) if _ports_of(old) != _ports_of(new) else None

    def _weigh(self, change: Change, pod: Pod | None) -> bool:
        """True: its weight is another one now."""
        namespace, number = change.key.namespace, crc32(change.key.name.encode())
        new = pod.weight if pod is not None and self._weights else 0
        own = self._weighed.get(namespace, {})
        if own.get(number, 0) == new:
            return False
        if new:
            self._weighed.setdefault(namespace, {})[number] = new
        else:
            del own[number]
        return True


def _ports_of(pod: Pod | None) -> object:
    """All that its host ports depend on."""
    return None if pod is None else (pod.addresses, pod.host_ports)
