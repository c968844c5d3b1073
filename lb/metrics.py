"""The agent's state as Prometheus text, read from the controller when it is scraped.

Names of kube-proxy come with the drop-in; these are Tidegate's own. Costs nothing between scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lb import __version__
from lb.controller import Controller
from lb.histogram import Histogram
from lb.tables import Fill, room


class TidegateCollector(Collector):
    """`drops`, `ended` and `repairs` read counters of data path, reaper and healer.

    `fills` tells how full the tables are that are not the controller's.
    """

    def __init__(
        self,
        controller: Controller,
        drops: Callable[[], Mapping[str, int]],
        ended: Callable[[], int],
        repairs: Callable[[], Mapping[str, int]] = dict,
        fills: Callable[[], Iterable[Fill]] = tuple,
    ) -> None:
        self._controller, self._drops, self._ended = controller, drops, ended
        self._repairs, self._fills = repairs, fills

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        others = [*self._fills()]
        with self._controller.lock:
            found = [*self._state(), *_maps([*self._own(), *others]), *self._builds()]
        yield from found
        yield from self._latency()
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

        repairs = CounterMetricFamily(
            "tidegate_repairs", "What somebody took off or altered and was put back.",
            labels=["what"],
        )  # fmt: skip
        for what, count in self._repairs().items():
            repairs.add_metric([what], count)
        yield repairs

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
        build = GaugeMetricFamily("tidegate_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield CounterMetricFamily(
            "tidegate_changes", "Turns that changed anything.", value=controller.revision
        )
        yield CounterMetricFamily(
            "tidegate_writes", "Services and frontends written or removed.", value=controller.writes
        )

    def _latency(self) -> Iterator[Metric]:
        progress = self._controller.progress
        with progress.lock:
            fine = {family.label: one for family, one in progress.fine.items()}
            yield histogram(
                "tidegate_programming_duration_seconds",
                "From a pod's change, as its EndpointSlice dates it, until it was applied.",
                fine,
            )
            yield histogram(
                "tidegate_apply_duration_seconds",
                "From the arrival of changes here until they were applied.",
                {"": progress.waits},
                label="",
            )

    def _builds(self) -> Iterator[Metric]:
        builds = self._controller.reconciler.placer.rings.builds
        total = CounterMetricFamily(
            "tidegate_table_builds", "Maglev tables built, and tries that came to nothing.",
            labels=["result"],
        )  # fmt: skip
        for result, count in builds.results.items():
            total.add_metric([result], count)
        yield total
        yield histogram(
            "tidegate_table_build_duration_seconds",
            "Time to fill a Maglev table and write it.",
            {"": builds.durations},
            label="",
        )

    def _own(self) -> Iterator[Fill]:
        """From the agent's own accounts: scraping reads none of these tables."""
        reconciler, addresses = self._controller.reconciler, self._controller.addresses
        tables, placer = reconciler.tables, reconciler.placer
        yield Fill("frontends", len(reconciler.frontends.there), tables.frontends.capacity)
        for name, of in (
            ("services", placer.services),
            ("backends", placer.backends),
            ("slots", placer.lines),
            ("rings", placer.rings.extents),
        ):
            yield Fill(name, of.used, room(name, of.capacity))
        yield Fill("ranges", reconciler.ranges.used, tables.ranges.capacity)
        yield Fill("vips", len(reconciler.vips.there), tables.vips.capacity)
        yield Fill("addresses", len(addresses.written), addresses.table.capacity)


def _maps(fills: Iterable[Fill]) -> Iterator[Metric]:
    entries = GaugeMetricFamily("tidegate_map_entries", "Entries in use.", labels=["map"])
    capacity = GaugeMetricFamily("tidegate_map_capacity", "Entries at most.", labels=["map"])
    for one in fills:
        entries.add_metric([one.table], one.used)
        capacity.add_metric([one.table], one.fits)
    yield entries
    yield capacity


def histogram(
    name: str,
    text: str,
    found: Mapping[str, Histogram],
    *,
    label: str = "ip_family",
    **fixed: str,
) -> Metric:
    """By a label, and with others that are `fixed`; bounds are written as Go writes them."""
    metric = HistogramMetricFamily(name, text, labels=[*fixed, *([label] if label else [])])
    for value, one in found.items():
        counts = one.cumulative()
        buckets = [(f"{le:g}", n) for le, n in zip(one.bounds, counts, strict=False)]
        labels = [*fixed.values(), *([value] if label else [])]
        metric.add_metric(labels, [*buckets, ("+Inf", counts[-1])], one.sum)
    return metric


def scraper(*collectors: Collector) -> Callable[[], bytes]:
    """Gives the metrics of the collectors, and of this process, as Prometheus text."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)
