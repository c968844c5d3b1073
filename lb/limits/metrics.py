"""Limits as Prometheus text, read from the tables when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bandwidth.annotations import Direction

_LABELS = ["namespace", "pod", "direction"]
_COUNTS = {
    "packets": "Packets let through at a bandwidth limit.",
    "bytes": "Bytes of frames let through at a bandwidth limit.",
    "delayed": "Packets that had to wait at a bandwidth limit.",
    "delayed_bytes": "Bytes of frames that had to wait at a bandwidth limit.",
    "waited_ns": "Nanoseconds that packets were told to wait at a bandwidth limit, summed.",
    "marked": "Packets marked (ECN) at a bandwidth limit.",
    "dropped": "Packets dropped at a bandwidth limit.",
    "dropped_bytes": "Bytes of frames dropped at a bandwidth limit.",
}


class LimitsCollector(Collector):
    """`rows` are those of `show limits`."""

    def __init__(self, rows: Callable[[], list[dict[str, Any]]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        rate = GaugeMetricFamily(
            "tidegate_limit_bits_per_second", "What a pod is limited to.", labels=_LABELS
        )
        force = GaugeMetricFamily(
            "tidegate_limit_enforced", "1 while the limit is in force.", labels=_LABELS
        )
        counts = {
            name: CounterMetricFamily(f"tidegate_limit_{name}", text, labels=_LABELS)
            for name, text in _COUNTS.items()
        }
        for row in self._rows():
            for direction in Direction:
                of = row.get(str(direction))
                if of is not None:
                    labels = [row["namespace"], row["pod"], str(direction)]
                    rate.add_metric(labels, row[f"{direction}_bits_per_second"])
                    force.add_metric(labels, of["state"] == "enforced")
                    for name, metric in counts.items():
                        metric.add_metric(labels, of[name])
        yield from (rate, force, *counts.values())
