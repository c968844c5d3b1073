"""kube-proxy's metrics by its own names, labels and buckets, so that its dashboards go on working.

Those that mean something whatever the mode: nothing here counts rules of iptables or nftables,
since there are none. Where kube-proxy ends UDP flows by deleting entries of conntrack, the sockets
are counted that the reaper ends. Read when scraped; costs nothing between scrapes.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bpf.layout import Empty, View
from lb import GIT_VERSION, KUBERNETES
from lb.address import Family
from lb.controller import Controller
from lb.metrics import histogram
from lb.model import Kind, ServiceName
from lb.plan import Plan
from lb.progress import Progress
from lb.reaper import Rounds
from lb.sources import Api

PREFIX = "kubeproxy_"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Architectures by their names in Go."""
_CHANGES = {Kind.SLICE: "endpoint", Kind.SERVICE: "service"}
_SIDES = {View.CLUSTER_IP: "internal", View.OUTSIDE: "external"}


class KubeProxyCollector(Collector):
    """`asked`: how often the health port was asked, by path and code; `api`: of client-go's.

    `rounds` are the reaper's.
    """

    def __init__(
        self,
        controller: Controller,
        asked: Callable[[], Mapping[tuple[str, int], int]],
        rounds: Rounds,
        api: Api | None = None,
    ) -> None:
        self._controller, self._asked, self._api = controller, asked, api
        self._rounds = rounds

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
        with self._rounds.lock:
            ended = [*_ended(self._rounds)]
        yield from ended
        yield _build()
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


def _ended(rounds: Rounds) -> Iterator[Metric]:
    """The reconciler of conntrack, in its place the reaper: UDP alone, as there."""
    name = f"{PREFIX}conntrack_reconciler"
    text = "Time of one round that looks for UDP sockets whose backend is gone."
    durations = {family.label: one for family, one in rounds.durations.items()}
    yield histogram(f"{name}_sync_duration_seconds", text, durations)
    total = CounterMetricFamily(
        f"{name}_deleted_entries", "UDP sockets ended, since their backend is gone.",
        labels=["ip_family"],
    )  # fmt: skip
    for family, count in rounds.ended.items():
        total.add_metric([family.label], count)
    yield total


def _build() -> Metric:
    """Labels of k8s.io/component-base's metric of this name; empty: there is no such thing here."""
    major, minor = KUBERNETES.split(".")
    machine = platform.machine()
    labels = {
        "major": major,
        "minor": minor,
        "git_version": GIT_VERSION,
        "git_commit": "",
        "git_tree_state": "",
        "build_date": "",
        "go_version": "",
        "compiler": f"{sys.implementation.name}{platform.python_version()}",
        "platform": f"linux/{_MACHINES.get(machine, machine)}",
    }
    build = GaugeMetricFamily(
        "kubernetes_build_info",
        "Always 1: the Kubernetes whose kube-proxy is followed, and this version of Tidegate.",
        labels=[*labels],
    )
    build.add_metric([*labels.values()], 1)
    return build


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
