"""kube-proxy's metrics by its own names, labels and buckets, so that its dashboards go on working.

Those that mean something whatever the mode: nothing here counts rules of iptables or nftables, or
entries of conntrack, since there are none. Read when scraped; costs nothing between scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bpf.layout import Empty, View
from lb.address import Family
from lb.controller import Controller
from lb.metrics import histogram
from lb.model import Kind, ServiceName
from lb.plan import Plan
from lb.progress import Progress
from lb.sources import Api

PREFIX = "kubeproxy_"
_CHANGES = {Kind.SLICE: "endpoint", Kind.SERVICE: "service"}
_SIDES = {View.CLUSTER_IP: "internal", View.OUTSIDE: "external"}


class KubeProxyCollector(Collector):
    """`asked`: how often the health port was asked, by path and code; `api`: of client-go's."""

    def __init__(
        self,
        controller: Controller,
        asked: Callable[[], Mapping[tuple[str, int], int]],
        api: Api | None = None,
    ) -> None:
        self._controller, self._asked, self._api = controller, asked, api

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        progress = self._controller.progress
        with progress.lock:
            found = [*_durations(progress), *_times(progress)]
        yield from found
        with self._controller.lock:
            pending, seen = self._controller.pending(), dict(self._controller.store.seen)
            plans = [one.plan for one in self._controller.reconciler.units.values()]
        for kind, word in _CHANGES.items():
            name, text = f"{PREFIX}sync_proxy_rules_{word}_changes", f"{kind.value} changes"
            yield GaugeMetricFamily(f"{name}_pending", f"{text} that wait.", value=pending[kind])
            yield CounterMetricFamily(name, f"{text} that came.", value=seen[kind])
        yield _without_local(one for one in plans if one is not None)
        yield from self._answers()
        if self._api is not None:
            yield from _requests(self._api)

    def _answers(self) -> Iterator[Metric]:
        asked = self._asked()
        for word in ("healthz", "livez"):
            metric = CounterMetricFamily(
                f"{PREFIX}proxy_{word}", f"Answers of /{word} by code.", labels=["code"]
            )
            for (path, code), count in sorted(asked.items()):
                if path == f"/{word}":
                    metric.add_metric([str(code)], count)
            yield metric


def _requests(api: Api) -> Iterator[Metric]:
    host = urlsplit(api.location).netloc
    with api.asked.lock:
        codes, durations = dict(api.asked.codes), api.asked.durations
        yield histogram(
            "rest_client_request_duration_seconds",
            "Time until the API server's answer begins.",
            durations,
            label="verb",
            host=host,
        )
    total = CounterMetricFamily(
        "rest_client_requests",
        "Requests to the API server.",
        labels=["code", "host", "method"],
    )
    for (method, code), count in sorted(codes.items()):
        total.add_metric([str(code) if code else "<error>", host, method], count)
    yield total


def _durations(progress: Progress) -> Iterator[Metric]:
    for name, text, found in (
        ("sync_proxy_rules", "Time of one turn: plan and apply.", progress.turns),
        ("sync_full_proxy_rules", "Turns over all services.", progress.full_turns),
        ("sync_partial_proxy_rules", "Turns over what changed.", progress.partial_turns),
        ("network_programming", "From a pod's change until it was applied.", progress.programming),
    ):
        by_label = {family.label: one for family, one in found.items()}
        yield histogram(f"{PREFIX}{name}_duration_seconds", text, by_label)


def _times(progress: Progress) -> Iterator[Metric]:
    for name, text, at in (
        ("last", "When changes were last applied.", progress.updated),
        ("last_queued", "When changes last came.", progress.queued_at),
    ):
        metric = GaugeMetricFamily(
            f"{PREFIX}sync_proxy_rules_{name}_timestamp_seconds", text, labels=["ip_family"]
        )
        if at is not None:
            for family in Family:
                metric.add_metric([family.label], at)
        yield metric


def _without_local(plans: Iterator[Plan]) -> Metric:
    """A gauge, although kube-proxy's name for it ends like a counter's."""
    found: dict[tuple[Family, View], set[ServiceName]] = {
        (family, view): set() for family in Family for view in _SIDES
    }
    for plan in plans:
        for view in _SIDES:
            if plan.empty[view] is Empty.DROP:
                found[plan.unit.family, view].add(plan.unit.service)
    metric = GaugeMetricFamily(
        f"{PREFIX}sync_proxy_rules_no_local_endpoints_total",
        "Services with a Local policy that have endpoints, and none here.",
        labels=["ip_family", "traffic_policy"],
    )
    for (family, view), services in found.items():
        metric.add_metric([family.label, _SIDES[view]], len(services))
    return metric
