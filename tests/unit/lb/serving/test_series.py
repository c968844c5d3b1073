"""kube-proxy's metrics as its dashboards ask for them: names, types, labels and buckets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lb import __version__
from lb.address import Family
from lb.metrics import scraper
from lb.model import Policy
from lb.reaper import Rounds
from lb.serving.series import KubeProxyCollector
from lb.sources.kubernetes import KubernetesSource
from lb.sources.reflector import Failed
from tests.bed.apiserver import ApiServer
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import WEB, Bench

TURN = "0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384"
PROGRAMMING = " ".join(
    [
        "0 0.25 0.5",
        *(str(n) for n in range(1, 60)),
        "60 65 70 75 80 85 90 95 100 105 110 115 120 150 180 210 240 270 300",
    ]
)
GOLDEN = {
    "kubeproxy_conntrack_reconciler_deleted_entries_total": ("counter", "ip_family", ""),
    "kubeproxy_conntrack_reconciler_sync_duration_seconds": ("histogram", "ip_family", TURN),
    "kubeproxy_network_programming_duration_seconds": ("histogram", "ip_family", PROGRAMMING),
    "kubeproxy_proxy_healthz_total": ("counter", "code", ""),
    "kubeproxy_proxy_livez_total": ("counter", "code", ""),
    "kubeproxy_sync_full_proxy_rules_duration_seconds": ("histogram", "ip_family", TURN),
    "kubeproxy_sync_partial_proxy_rules_duration_seconds": ("histogram", "ip_family", TURN),
    "kubeproxy_sync_proxy_rules_duration_seconds": ("histogram", "ip_family", TURN),
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending": ("gauge", "", ""),
    "kubeproxy_sync_proxy_rules_endpoint_changes_total": ("counter", "", ""),
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds": ("gauge", "ip_family", ""),
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds": ("gauge", "ip_family", ""),
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total": (
        "gauge", "ip_family traffic_policy", "",
    ),
    "kubeproxy_sync_proxy_rules_service_changes_pending": ("gauge", "", ""),
    "kubeproxy_sync_proxy_rules_service_changes_total": ("counter", "", ""),
}  # fmt: skip


class Series(NamedTuple):
    """A scrape: the shape of each metric of kube-proxy's, and each value by its series."""

    shapes: dict[str, tuple[str, str, str]]
    values: dict[str, float]


def scrape(bench: Bench, rounds: Rounds | None = None) -> Series:
    """As a Prometheus server reads it, after three questions to the health port."""
    asked = {("/healthz", 200): 2, ("/healthz", 503): 1, ("/livez", 200): 4}
    text = scraper(
        KubeProxyCollector(bench.controller, lambda: asked, rounds or Rounds())
    )().decode()
    types = {
        line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")
    }
    shapes = {}
    values = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if not name.startswith("kubeproxy_"):
            continue
        labels = {label for one in family.samples for label in one.labels} - {"le"}
        bounds = dict.fromkeys(one.labels["le"] for one in family.samples if "le" in one.labels)
        assert list(bounds)[-1:] in ([], ["+Inf"])
        shapes[name] = (types[name], " ".join(sorted(labels)), " ".join(list(bounds)[:-1]))
        for one in family.samples:
            shown = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
            values[f"{one.name}{{{shown}}}"] = one.value
    return Series(shapes, values)


def count(series: Series, name: str, family: Family) -> float:
    """How many a histogram has seen."""
    return series.values[f"kubeproxy_{name}_duration_seconds_count{{ip_family={family.label}}}"]


def test_names_types_labels_and_buckets() -> None:
    """All of those that mean something in any mode, and no others."""
    bench = Bench()
    bench.apply(WEB)
    bench.sync()
    assert scrape(bench).shapes == GOLDEN


def test_turns_and_changes_are_counted() -> None:
    """The first turn is a full one of both families; a slice's is one of its own."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1"))
    bench.sync()
    recent = msgspec.structs.replace(
        slice_of("web", "2"), trigger_time=bench.controller.progress.started + 0.001
    )
    bench.apply(recent)
    bench.apply(slice_of("web", "2"))
    found = scrape(bench)
    four, six = Family
    turns = [count(found, f"sync{kind}_proxy_rules", one)
             for kind in ("", "_full", "_partial") for one in (four, six)]  # fmt: skip
    assert turns == [2, 1, 1, 1, 1, 0]
    assert [count(found, "network_programming", one) for one in (four, six)] == [1, 0]
    assert found.values["kubeproxy_sync_proxy_rules_service_changes_total{}"] == 1
    assert found.values["kubeproxy_sync_proxy_rules_endpoint_changes_total{}"] == 3
    assert found.values["kubeproxy_sync_proxy_rules_endpoint_changes_pending{}"] == 0
    assert found.values["kubeproxy_proxy_healthz_total{code=200}"] == 2
    assert found.values["kubeproxy_proxy_healthz_total{code=503}"] == 1
    assert found.values["kubeproxy_proxy_livez_total{code=200}"] == 4


def test_what_waits_is_shown() -> None:
    """Before the first full state nothing is applied, and the time of it is not made up."""
    bench = Bench()
    bench.controller.changed([])
    found = scrape(bench)
    assert found.values["kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=IPv4}"]
    assert not any("rules_last_timestamp" in name for name in found.values)


def test_local_services_without_local_endpoints_are_counted_once() -> None:
    """By policy and family, whatever the number of ports; none anywhere is no such case."""
    bench = Bench()
    bench.apply(
        service("in", "10.96.0.1", "fd00::1", internal_policy=Policy.LOCAL),
        slice_of("in", "1 n2"),
        service("out", "10.96.0.2", node_port=30081, external_policy=Policy.LOCAL),
        slice_of("out", "2 n2"),
        service("here", "10.96.0.3", internal_policy=Policy.LOCAL),
        slice_of("here", "3 n1"),
        service("empty", "10.96.0.4", internal_policy=Policy.LOCAL),
    )
    bench.sync()
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    found = {key: value for key, value in scrape(bench).values.items() if key.startswith(name)}
    assert found == {
        f"{name}{{ip_family=IPv4,traffic_policy=internal}}": 1,
        f"{name}{{ip_family=IPv4,traffic_policy=external}}": 1,
        f"{name}{{ip_family=IPv6,traffic_policy=internal}}": 0,
        f"{name}{{ip_family=IPv6,traffic_policy=external}}": 0,
    }


def test_sockets_that_were_ended_stand_for_entries_of_conntrack() -> None:
    """By family, with how long the rounds took that looked for them."""
    rounds = Rounds()
    four, six = Family
    rounds.end(six)
    rounds.end(six)
    rounds.done([four, six], 0.25)
    rounds.done([six], 0.003)
    found = scrape(Bench(), rounds)
    name = "kubeproxy_conntrack_reconciler_deleted_entries_total"
    assert [found.values[f"{name}{{ip_family={one.label}}}"] for one in (four, six)] == [0, 2]
    assert [count(found, "conntrack_reconciler_sync", one) for one in (four, six)] == [1, 2]
    bucket = "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket"
    assert found.values[f"{bucket}{{ip_family=IPv6,le=0.004}}"] == 1


def test_the_build_tells_whose_kube_proxy_it_follows() -> None:
    """Labels of Kubernetes' own metric, in a version that sorts as that of kube-proxy."""
    lines = scraper(KubeProxyCollector(Bench().controller, dict, Rounds()))().decode()
    (metric,) = [
        one for one in text_string_to_metric_families(lines) if one.name == "kubernetes_build_info"
    ]
    (sample,) = metric.samples
    assert sorted(sample.labels) == [
        "build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version",
        "major", "minor", "platform",
    ]  # fmt: skip
    assert (metric.type, sample.value) == ("gauge", 1)
    known = {name: sample.labels[name] for name in ("major", "minor", "git_version")}
    version = f"v1.36.0+tidegate-{__version__}"
    assert known == {"major": "1", "minor": "36", "git_version": version}
    assert sample.labels["platform"].startswith("linux/")


def test_requests_to_the_api_server_are_counted_as_client_go_does(
    api: ApiServer, tmp_path: Path
) -> None:
    """By code, host and method, and how long they took; no answer at all is an error."""
    source = KubernetesSource(
        kubeconfig=str(api.kubeconfig(tmp_path / "config")), master="", node_name="n1"
    )
    with source.api.get("/api/v1/services", {}, patience=5.0) as answer:
        answer.whole()
    with pytest.raises(Failed):
        source.api.send("POST", "/api/v1/services", b"{}")
    api.stop()
    with pytest.raises(Failed):
        source.api.get("/api/v1/services", {}, patience=5.0)
    collector = KubeProxyCollector(Bench().controller, dict, Rounds(), source.api)
    lines = scraper(collector)().decode().splitlines()
    host = f'host="{api.address}:{api.port}"'
    found = [line for line in lines if line.startswith("rest_client_requests_total{")]
    assert found == [
        f'rest_client_requests_total{{code="<error>",{host},method="GET"}} 1.0',
        f'rest_client_requests_total{{code="200",{host},method="GET"}} 1.0',
        f'rest_client_requests_total{{code="403",{host},method="POST"}} 1.0',
    ]
    assert f'rest_client_request_duration_seconds_count{{{host},verb="GET"}} 2.0' in lines
    bounds = [
        line.partition('le="')[2].partition('"')[0]
        for line in lines
        if line.startswith("rest_client_request_duration_seconds_bucket") and "GET" in line
    ]
    assert " ".join(bounds) == "0.005 0.025 0.1 0.25 0.5 1 2 4 8 15 30 60 +Inf"
