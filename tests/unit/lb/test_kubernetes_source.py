"""A Kubernetes API server as a source, against a stand-in that fails in every way we know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.model import Key, Kind, Service
from lb.sources import reflector
from lb.sources.kubernetes import KubernetesSource
from lb.sources.reflector import wait_seconds
from tests.bed.apiserver import ApiServer
from tests.bed.inbox import DEADLINE, RecordingInbox, running

PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"


def service(name: str = "web", port: int = 80, **fields: Any) -> dict[str, Any]:
    """A Service; `fields` replace those of its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}], **fields},
    }


def endpoint_slice(name: str = "web-1", **labels: str) -> dict[str, Any]:
    """An EndpointSlice of the service `web`."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web", **labels},
        },
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["fd00::1"]}],
        "ports": [{"name": "", "port": 8080}],
    }


def node(name: str = "n1") -> dict[str, Any]:
    """A Node."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def port_of(inbox: RecordingInbox, name: str = "web") -> int:
    """The port of a service as last delivered; 0: not there."""
    change = inbox.objects.get(Key(Kind.SERVICE, "default", name))
    return change.value.ports[0].port if change and isinstance(change.value, Service) else 0


def seen(server: ApiServer, condition: Callable[[], bool]) -> None:
    """Wait until the server was asked for something."""
    with server.news:
        assert server.news.wait_for(condition, DEADLINE), server.requests


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(reflector, "LONGEST_WAIT", 0.05)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """A server with one service, its slice and two nodes."""
    with ApiServer() as server:
        for item in (service(), endpoint_slice(), node("n1"), node("n2")):
            server.put(item)
        yield server


def source(server: ApiServer, directory: Path) -> KubernetesSource:
    """A source of node n1 that knows the server by a kubeconfig."""
    return KubernetesSource(str(server.kubeconfig(directory)), "", "n1")


def watching(server: ApiServer, kind: str = "Service", times: int = 1) -> None:
    """Wait until the kind is being watched."""
    seen(server, lambda: server.count(kind, watch=True) >= times)


def test_the_first_lists_are_delivered_before_synced(server: ApiServer, tmp_path: Path) -> None:
    """Services, slices and the own node, and no other, are in before `synced`."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert inbox.names == {"Service default/web", "EndpointSlice default/web-1", "Node n1"}
        assert (inbox.reports[-1].kind, inbox.reports[-1].location) == ("kubernetes", server.url)
        assert inbox.error == ""


@pytest.mark.parametrize("kind", ["Service", "EndpointSlice"])
def test_no_sync_without_services_and_slices(server: ApiServer, tmp_path: Path, kind: str) -> None:
    """As long as one of the two lists is missing nothing may be removed, so it is not synced."""
    server.fail(500, 1000, kind=kind)
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: "500 made to say 500" in inbox.error and len(inbox.names) == 2)
        assert not inbox.is_synced


def test_a_node_that_cannot_be_had_holds_nothing_up(server: ApiServer, tmp_path: Path) -> None:
    """A node that is absent, or that we may not read, does not keep services from syncing."""
    server.fail(403, 1000, kind="Node")
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced and "403" in inbox.error)
        assert "Node n1" not in inbox.names


def test_watched_changes_are_delivered(server: ApiServer, tmp_path: Path) -> None:
    """Added, changed and deleted objects follow from the watch, without another list."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        server.put(service("new"))
        server.put(service(port=81))
        server.delete(endpoint_slice())
        inbox.wait(lambda: "Service default/new" in inbox.names and port_of(inbox) == 81)
        inbox.wait(lambda: "EndpointSlice default/web-1" not in inbox.names)
        assert server.count("Service", watch=False) == 1


def test_a_change_of_nothing_we_read_is_no_change(server: ApiServer, tmp_path: Path) -> None:
    """Churn in annotations and status delivers nothing."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        churned = service()
        churned["metadata"]["annotations"] = {"other": "x"}
        server.put(churned)
        server.put(service("last"))
        inbox.wait(lambda: "Service default/last" in inbox.names)
        services = [change for change in inbox.changes if change.key.kind is Kind.SERVICE]
        assert [change.key.name for change in services] == ["web", "last"]


def test_labels_that_exclude_are_deletes_and_adds(server: ApiServer, tmp_path: Path) -> None:
    """The proxy-name label, the headless label and clusterIP None take objects out, and back."""
    excluded = service()
    excluded["metadata"]["labels"] = {PROXY_LABEL: ""}
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        for out in (excluded, service(clusterIP="None")):
            server.put(out)
            inbox.wait(lambda: "Service default/web" not in inbox.names)
            server.put(service())
            inbox.wait(lambda: "Service default/web" in inbox.names)
        server.put(endpoint_slice(**{HEADLESS_LABEL: "x"}))
        inbox.wait(lambda: "EndpointSlice default/web-1" not in inbox.names)
        server.put(endpoint_slice())
        inbox.wait(lambda: "EndpointSlice default/web-1" in inbox.names)


def test_long_lists_come_in_pages(server: ApiServer, tmp_path: Path) -> None:
    """Every page is asked for, and all of them are one delivery."""
    server.page_limit = 3
    for i in range(10):
        server.put(service(f"s{i}"))
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert len([name for name in inbox.names if name.startswith("Service ")]) == 11
        assert server.count("Service", watch=False) == 4


def test_a_list_that_expires_half_way_is_begun_again(server: ApiServer, tmp_path: Path) -> None:
    """410 for a page means a new list, not a gap."""
    server.page_limit = 1
    server.put(service("other"))
    server.fail(410, kind="Service", watch=False)
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert {"Service default/web", "Service default/other"} <= inbox.names


def test_after_a_gap_only_the_difference_is_delivered(server: ApiServer, tmp_path: Path) -> None:
    """History lost while the server was away: deletes and changes come, equal objects do not."""
    for name in ("stays", "goes"):
        server.put(service(name))
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        watching(server)
        server.down()
        server.delete(service("goes"))
        server.put(service(port=81))
        server.forget()
        before = len(inbox.changes)
        server.up()
        inbox.wait(lambda: port_of(inbox) == 81)
        assert [str(change.key) for change in inbox.changes[before:]] == [
            "Service default/goes",
            "Service default/web",
        ]


def test_gone_as_a_status_means_a_new_list(server: ApiServer, tmp_path: Path) -> None:
    """A watch that is answered with 410 is the same as one that says so in an event."""
    server.fail(410, watch=True, kind="Service")
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        seen(server, lambda: server.count("Service", watch=False) == 2)
        watching(server, times=2)
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81)


def test_a_dropped_watch_goes_on_from_its_version(server: ApiServer, tmp_path: Path) -> None:
    """What changed in between comes through the next watch; nothing is listed again."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        watching(server)
        server.drop()
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81)
        assert server.count("Service", watch=False) == 1


def test_bookmarks_move_the_version_on(server: ApiServer, tmp_path: Path) -> None:
    """A quiet resource resumes from its last bookmark, so forgotten history does it no harm."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        for kind in ("Service", "EndpointSlice", "Node"):
            watching(server, kind)
        first = max(int(one.query["resourceVersion"]) for one in server.requests if one.is_watch)
        server.bookmark()
        seen(server, lambda: server.sent["EndpointSlice"] == 1)
        server.drop()
        watching(server, "EndpointSlice", 2)
        last = [one for one in server.requests if one.is_watch and one.kind == "EndpointSlice"][-1]
        assert int(last.query["resourceVersion"]) > first


def test_a_half_open_connection_is_noticed(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch on which nothing comes, not even bookmarks, is replaced by another."""
    monkeypatch.setattr(reflector, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(reflector, "SHORT_SECONDS", 0.1)
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        watching(server)
        server.freeze()
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81)
        assert server.count("Service", watch=False) == 1
        assert inbox.error == ""


def test_an_unreachable_server_is_reported_and_data_stays(
    server: ApiServer, tmp_path: Path
) -> None:
    """Refused connections: one error line, no change; when the server is back, so is all else."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        watching(server)
        names, count = inbox.names, len(inbox.changes)
        server.down()
        inbox.wait(lambda: "Connection refused" in inbox.error)
        assert "\n" not in inbox.error
        assert (inbox.names, len(inbox.changes)) == (names, count)
        server.up()
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81 and inbox.error == "")


def test_a_server_that_is_not_there_at_the_start_is_waited_for(
    server: ApiServer, tmp_path: Path
) -> None:
    """Starting before the API server is no end, only a wait."""
    server.down()
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: "Connection refused" in inbox.error)
        assert not inbox.is_synced
        server.up()
        inbox.wait(lambda: inbox.is_synced and inbox.error == "")


def test_tokens_are_read_again(server: ApiServer, tmp_path: Path) -> None:
    """A token that was rotated in its file is used at the next request."""
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        watching(server)
        server.token = "another"
        server.drop()
        inbox.wait(lambda: "401" in inbox.error)
        (tmp_path / "token").write_text("another\n")
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81 and inbox.error == "")


def test_a_server_without_the_field_is_asked_without_it(server: ApiServer, tmp_path: Path) -> None:
    """Where `spec.clusterIP` cannot be selected by, headless services are left out here."""
    server.knows_fields = False
    server.put(service("headless", clusterIP="None"))
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert "Service default/web" in inbox.names
        assert "Service default/headless" not in inbox.names


def test_one_object_of_wrong_type_harms_no_other(server: ApiServer, tmp_path: Path) -> None:
    """In a list and in a watch: it is refused by field, the others are served."""
    server.put(service("odd", ports="none"))
    with running(source(server, tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert "Service default/web" in inbox.names
        change = inbox.objects[Key(Kind.SERVICE, "default", "odd")]
        assert change.refused[0].reason.startswith("spec.ports: ")
        server.put(service("odder", ports=[{"port": "80"}]))
        server.put(service(port=81))
        inbox.wait(lambda: port_of(inbox) == 81)
        change = inbox.objects[Key(Kind.SERVICE, "default", "odder")]
        assert change.refused[0].reason.startswith("spec.ports[0].port: ")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "kubeconfig: "),
        ("{", "kubeconfig: "),
        ("[]", "kubeconfig: "),
        ("{}", "kubeconfig: Invalid kube-config file"),
    ],
    ids=["missing", "broken", "a list", "empty"],
)
def test_a_bad_kubeconfig_is_an_error_line(
    server: ApiServer, tmp_path: Path, content: str | None, error: str
) -> None:
    """The file is named, and once it is good the source goes on by itself."""
    path = server.kubeconfig(tmp_path)
    good = path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    with running(KubernetesSource(str(path), "", "n1")) as inbox:
        inbox.wait(lambda: error in inbox.error)
        assert "\n" not in inbox.error
        path.write_text(good)
        inbox.wait(lambda: inbox.is_synced and inbox.error == "")


def test_an_unknown_authority_is_an_error_line(server: ApiServer, tmp_path: Path) -> None:
    """`--master` alone has no authority to check the server by: it is not trusted."""
    with running(KubernetesSource("", server.url, "n1")) as inbox:
        inbox.wait(lambda: "certificate verify failed" in inbox.error)
        assert not inbox.is_synced
    path = server.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace(server.url, "https://127.0.0.1:9"))
    with running(KubernetesSource(str(path), server.url, "n1")) as inbox:
        inbox.wait(lambda: inbox.is_synced)


def test_waits_grow_and_are_bounded() -> None:
    """None before the first failure, then twice as long each time, jittered, up to a limit."""
    assert wait_seconds(0, 1.0) == 0.0
    assert wait_seconds(1, 1.0) == reflector.FIRST_WAIT
    assert wait_seconds(2, 0.0) == reflector.FIRST_WAIT
    assert wait_seconds(10**6, 1.0) == reflector.LONGEST_WAIT
