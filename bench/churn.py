"""A cluster that never rests: random changes of random objects in a stand-in API server's store.

For load and soak. No two services ask for the same address, so what the maps should hold in the
end depends on the objects alone and not on their history.
"""

from __future__ import annotations

import random
from typing import Any

from tests.bed.apistore import Store
from tests.bed.manifests import (
    Manifest,
    endpoint,
    endpoint_slice,
    ingress,
    port,
    service,
    slice_port,
)

MOST_ENDPOINTS = 12


class Churn:
    """`services` of them at most; `dice` decides everything. Not thread-safe."""

    def __init__(self, store: Store, dice: random.Random, services: int) -> None:
        self._store, self._dice = store, dice
        self._numbers = range(1, services + 1)
        self._there: set[tuple[str, str]] = set()
        self._malformed: set[tuple[str, str]] = set()
        self.changes = 0

    def fill(self) -> None:
        """All services and their slices."""
        for number in self._numbers:
            self._put(self.service(number))
            for manifest in self.slices(number):
                self._put(manifest)

    def step(self) -> None:
        """One change."""
        number = self._dice.choice(self._numbers)
        match self._dice.choices(
            ("slices", "service", "remove", "spoil", "touch"), (70, 15, 6, 3, 6)
        ):
            case ["slices"]:
                self._put(self._dice.choice(self.slices(number)))
            case ["service"]:
                self._put(self.service(number))
            case ["remove"]:
                self._remove(number)
            case ["spoil"]:
                self._spoil(number)
            case _:
                self._touch(number)
        self.changes += 1

    def mend(self) -> None:
        """Every object is well-formed again; what the last good form of one was counts no more."""
        for kind, name in sorted(self._malformed):
            number = int(name.split("-")[1])
            made = [self.service(number), *self.slices(number)]
            self._put(
                next(one for one in made if (one["kind"], one["metadata"]["name"]) == (kind, name))
            )

    def service(self, number: int) -> Manifest:
        """Some form of a service."""
        dice = self._dice
        high, low = number >> 8, number & 255
        ips = [f"10.96.{high}.{low}", f"fd00:96::{number:x}"][: dice.choice((1, 1, 2))]
        ports = [port(80, name="http", node_port=dice.choice((None, 30000 + number)))]
        if dice.random() < 0.3:
            ports.append(port(53, name="dns", protocol="UDP"))
        balancer = [ingress(f"203.0.{high}.{low}")] if dice.random() < 0.2 else []
        kind = "LoadBalancer" if balancer else "NodePort" if ports[0].get("nodePort") else None
        extra: dict[str, Any] = {}
        if dice.random() < 0.2:
            extra["affinity_seconds"] = 600
        if kind and dice.random() < 0.3:
            extra["external_policy"] = "Local"
        if balancer and dice.random() < 0.3:
            extra["source_ranges"] = ["198.51.100.0/24"]
        if dice.random() < 0.05:
            extra["labels"] = {"service.kubernetes.io/service-proxy-name": "another"}
        if dice.random() < 0.05:
            return service(f"churn-{number}", cluster_ips=["None"], ports=ports)
        return service(
            f"churn-{number}",
            cluster_ips=ips,
            ports=ports,
            kind=kind,
            load_balancer=balancer,
            **extra,
        )

    def slices(self, number: int) -> list[Manifest]:
        """Some form of both of its slices."""
        dice, found = self._dice, []
        for family, prefix in (
            ("IPv4", f"10.244.{number >> 6}."),
            ("IPv6", f"fd00:244:{number:x}::"),
        ):
            count = dice.choice((0, 1, 2, 3, 5, MOST_ENDPOINTS))
            ones = dice.sample(range(1, 2 * MOST_ENDPOINTS), count)
            first = (number & 3) * 60 if family == "IPv4" else 0
            endpoints = [self._endpoint(f"{prefix}{first + one}") for one in ones]
            ports = [slice_port(8080, name="http"), slice_port(5353, name="dns", protocol="UDP")]
            found.append(
                endpoint_slice(f"churn-{number}", endpoints=endpoints, ports=ports, family=family)
            )
        return found

    def _endpoint(self, address: str) -> Manifest:
        dice = self._dice
        where = {"node": dice.choice(("n1", "n2", "n3")), "zone": dice.choice("ab")}
        match dice.choice(("ready", "ready", "ready", "draining", "unready")):
            case "draining":
                return endpoint(address, ready=False, serving=True, terminating=True, **where)
            case "unready":
                return endpoint(address, ready=False, serving=False, **where)
            case _:
                return endpoint(address, **where)

    def _put(self, manifest: Manifest) -> None:
        self._store.put(manifest)
        which = (manifest["kind"], manifest["metadata"]["name"])
        self._there.add(which)
        self._malformed.discard(which)

    def _remove(self, number: int) -> None:
        which = self._dice.choice(self._of(number))
        if which in self._there:
            self._store.delete(*which)
            self._there.discard(which)
            self._malformed.discard(which)

    def _spoil(self, number: int) -> None:
        """An object as no API server would let it in."""
        kind, name = which = self._dice.choice(self._of(number))
        wrong = self.service(number) if kind == "Service" else self.slices(number)[0]
        wrong["metadata"]["name"] = name
        if kind == "Service":
            wrong["spec"]["ports"] = "eighty"
        else:
            wrong["endpoints"] = [{"addresses": 7}]
        self._put(wrong)
        self._malformed.add(which)

    def _touch(self, number: int) -> None:
        """A change of what nobody reads: it must cost no write."""
        made = self.slices(number)[0]
        made["metadata"]["name"] = f"churn-{number}-touched"
        made["metadata"]["annotations"] = {"touched": str(self._dice.random())}
        made["endpoints"] = []
        self._put(made)

    @staticmethod
    def _of(number: int) -> list[tuple[str, str]]:
        name = f"churn-{number}"
        return [
            ("Service", name),
            ("EndpointSlice", f"{name}-ipv4"),
            ("EndpointSlice", f"{name}-ipv6"),
        ]
