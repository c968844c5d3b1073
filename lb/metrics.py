"""The agent's state as Prometheus text, read from the controller when it is scraped.

Names of kube-proxy come with the drop-in; these are Tidegate's own. Costs nothing between scrapes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lb.config import Listen
from lb.controller import Controller
from lb.tables import room

log = logging.getLogger("tidegate.metrics")


class TidegateCollector(Collector):
    """`drops` and `ended` read counters of the data path and of the reaper."""

    def __init__(
        self,
        controller: Controller,
        drops: Callable[[], Mapping[str, int]],
        ended: Callable[[], int],
    ) -> None:
        self._controller, self._drops, self._ended = controller, drops, ended

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        with self._controller.lock:
            yield from self._state()
            yield from self._maps()
        drops = CounterMetricFamily(
            "tidegate_drops", "Socket calls refused and packets dropped.", labels=["reason"]
        )
        for reason, count in self._drops().items():
            drops.add_metric([reason], count)
        yield drops
        yield CounterMetricFamily(
            "tidegate_sockets_ended", "UDP sockets ended for their owners to connect anew.",
            value=self._ended(),
        )  # fmt: skip

    def _state(self) -> Iterator[Metric]:
        controller, reconciler = self._controller, self._controller.reconciler
        refused = controller.store.refused.values()
        wrong = sum(any(one.wrong for one in notes) for notes in refused)
        errors = [report.error for report in controller.reports.values()]
        for name, text, value in (
            ("synced", "1 once the first full state is applied.", controller.is_synced),
            ("source_up", "1 while the source of objects can be read.", not any(errors)),
            ("services", "Service ports in the maps, by family.", len(reconciler.units)),
            ("failing", "Service ports that are not as asked for.", len(reconciler.failing)),
            (
                "refused_objects",
                "Objects not taken whole.",
                wrong,
            ),
        ):
            yield GaugeMetricFamily(f"tidegate_{name}", text, value=value)
        yield CounterMetricFamily(
            "tidegate_changes", "Turns that changed anything.", value=controller.revision
        )

    def _maps(self) -> Iterator[Metric]:
        """From the agent's own accounts: scraping reads no map."""
        reconciler = self._controller.reconciler
        tables, placer = reconciler.tables, reconciler.placer
        entries = GaugeMetricFamily("tidegate_map_entries", "Entries in use.", labels=["map"])
        capacity = GaugeMetricFamily("tidegate_map_capacity", "Entries at most.", labels=["map"])
        for name, used, fits in (
            ("frontends", len(reconciler.frontends.there), tables.frontends.capacity),
            ("services", placer.services.used, room("services", placer.services.capacity)),
            ("backends", placer.backends.used, room("backends", placer.backends.capacity)),
            ("slots", placer.lines.used, room("slots", placer.lines.capacity)),
        ):
            entries.add_metric([name], used)
            capacity.add_metric([name], fits)
        yield entries
        yield capacity


def serve(collector: Collector, at: Listen, *others: Collector) -> None:
    """Answers `GET /metrics` from a thread; an address that cannot be had is a warning."""
    registry = CollectorRegistry()
    for one in (collector, *others):
        registry.register(one)
    try:
        start_http_server(at.port, at.address, registry)
    except OSError as error:
        log.warning("no metrics: %s port %d: %s", at.address, at.port, error.strerror or error)
