"""What services and backends carry, as Prometheus metrics whose number is bounded.

One set a service port and family, then one a backend, as far as the limit goes; what is left out
is counted. Sums what the data path counted when it is scraped, and costs nothing between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bpf.layout import Listener, Load, RowSize
from bpf.maps import Array
from lb.address import show_port
from lb.controller import Controller
from lb.placing import Placed
from lb.plan import Unit
from lb.tables import Fill
from lb.traffic import Carried, Present, of_backend, of_service, pieces, present

SERIES = 10_000
"""Sets of counters at most, unless told otherwise."""
_NAMED = ("namespace", "service", "port_name", "protocol", "family")
_OF_SERVICES = (
    ("connections", "Connections begun, by sockets and from outside.", "connections"),
    ("packets", "Packets of connections from outside, both ways.", "packets"),
    ("bytes", "Bytes of their IP packets.", "octets"),
    ("refusals", "Socket calls refused and packets dropped.", "refusals"),
)
_OF_BACKENDS = _OF_SERVICES[:3]


class TrafficCollector(Collector):
    """`flows` and `listening` are the data path's tables; `limit` counts sets of metrics."""

    def __init__(
        self, controller: Controller, flows: Array, listening: Array, *, limit: int = SERIES
    ) -> None:
        self._controller, self._flows, self._listening = controller, flows, listening
        self._limit = limit
        self.fill = Fill("flows", 0, flows.capacity * RowSize.WAYS)
        """Connections from outside that are not over, as of the last scrape."""

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        there = present(pieces(self._flows), time.monotonic_ns())
        with self._controller.lock:
            units = list(self._controller.reconciler.units.items())
            services = self._services(units[: self._limit], there)
            room = self._limit - len(units)
            backends = self._backends(units, there, max(0, room))
        open_ = sum(n for (_, word), n in there.services.items() if word == "open")
        self.fill = self.fill._replace(used=open_)
        yield from services
        yield from backends
        total = sum(len(placed.backends) for _, placed in units) + len(units)
        yield GaugeMetricFamily(
            "tidegate_series_left_out", "Services and backends beyond --metrics-series.",
            value=max(0, total - self._limit),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "tidegate_flows", "Connections from outside that are not over.",
            value=self.fill.used,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "tidegate_flows_capacity", "Connections from outside that fit.",
            value=self.fill.fits,
        )  # fmt: skip
        lost = Listener.unpack(self._listening.read(0)).lost
        yield CounterMetricFamily(
            "tidegate_events_lost", "Events that a listener was too slow for.", value=lost
        )

    def _services(self, units: list[tuple[Unit, Placed]], there: Present) -> list[Metric]:
        counters = self._controller.reconciler.tables.counters
        found = [(_named(unit), of_service(counters, one.service, there)) for unit, one in units]
        return _families("service", _OF_SERVICES, (*_NAMED,), found)

    def _backends(
        self, units: list[tuple[Unit, Placed]], there: Present, limit: int
    ) -> list[Metric]:
        reconciler = self._controller.reconciler
        found: list[tuple[list[str], Carried]] = []
        for unit, placed in units:
            for where, spot in placed.backends.items():
                if len(found) >= limit:
                    break
                load = Load.unpack(reconciler.tables.loads.read(spot.id))
                generation = reconciler.placer.generations[spot.id]
                carried = of_backend(load, spot.id, generation, there)
                found.append(([*_named(unit), show_port(*where)], carried))
        return _families("backend", _OF_BACKENDS, (*_NAMED, "backend"), found)


def _named(unit: Unit) -> list[str]:
    service, port, protocol, family = unit
    return [service.namespace, service.name, port, protocol.name, family.label]


def _families(
    kind: str,
    of: tuple[tuple[str, str, str], ...],
    labels: tuple[str, ...],
    found: list[tuple[list[str], Carried]],
) -> list[Metric]:
    made: list[Metric] = []
    for name, text, field in of:
        family = CounterMetricFamily(f"tidegate_{kind}_{name}", text, labels=labels)
        for values, carried in found:
            family.add_metric(values, getattr(carried, field))
        made.append(family)
    return made
