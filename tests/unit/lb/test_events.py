"""Events as the API takes them: their form, their repetition, and what becomes of a flood."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb.address import Family
from lb.events import BURST, SERIES_SECONDS, Event, Recorder, body, of_node, of_service, of_turn
from lb.hostports import service_name
from lb.model import Key, Kind, Protocol, Refused, ServiceName
from lb.plan import Unit
from lb.sources.kubernetes import KubernetesSource
from lb.sources.reflector import Failed
from lb.turn import Turn
from tests.bed.apiserver import ApiServer

NOW = 1763740800.25
WEB = ServiceName("shop", "web")
TAKEN = of_service(WEB, "FailedToStartServiceHealthcheck", "Listen", "port 32000 is taken")


def test_an_event_of_a_service() -> None:
    """Every field, as kube-proxy fills them."""
    assert body(TAKEN, NOW, "host-1") == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"web.{1763740800250000000:x}", "namespace": "shop"},
        "eventTime": "2025-11-21T16:00:00.250000Z",
        "reportingController": "kube-proxy",
        "reportingInstance": "kube-proxy-host-1",
        "action": "Listen",
        "reason": "FailedToStartServiceHealthcheck",
        "regarding": {"kind": "Service", "namespace": "shop", "name": "web", "uid": "shop/web"},
        "note": "port 32000 is taken",
        "type": "Warning",
    }


def test_an_event_of_a_node() -> None:
    """It has no namespace, and its event the default one; a start is nothing to warn of."""
    found = body(of_node("n1", "Starting"), NOW, "host-1")
    assert found["regarding"] == {"kind": "Node", "name": "n1", "uid": "n1"}
    assert found["metadata"]["namespace"] == "default"
    assert (found["type"], found["action"], found["note"]) == ("Normal", "StartKubeProxy", "")
    assert body(of_node("n1", "FailedToStartMetricServer", "x"), NOW, "h")["type"] == "Warning"


def test_no_field_is_longer_than_the_api_takes() -> None:
    """A longer one would be refused whole."""
    found = body(TAKEN._replace(note="x" * 5000), NOW, "h" * 500)
    assert (len(found["note"]), len(found["reportingInstance"])) == (1024, 128)


class Bench:
    """A recorder, a clock that is moved by hand, and a server whose answers are told."""

    def __init__(self, *answers: Failed | None) -> None:
        self.now = NOW
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.pauses: list[float] = []
        self._answers = list(answers)
        self.recorder = Recorder(
            self._send, "h", clock=lambda: self.now, pause=self.pauses.append
        )  # fmt: skip

    def _send(self, method: str, path: str, raw: bytes) -> None:
        self.sent.append((method, path, json.loads(raw)))
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer

    def record(self, *events: Event) -> list[str]:
        """Until all is done; the methods of what was sent."""
        before = len(self.sent)
        for event in events:
            self.recorder.record(event)
        self.recorder.flush(5.0)
        return [method for method, *_ in self.sent[before:]]


def test_the_same_event_again_is_counted() -> None:
    """Within some minutes it changes the one that is there; after them it is a new one."""
    bench = Bench()
    assert bench.record(TAKEN, TAKEN, of_node("n1", "Starting")) == ["POST", "PATCH", "POST"]
    (_, path, made), (_, changed, series), _ = bench.sent
    assert path == "/apis/events.k8s.io/v1/namespaces/shop/events"
    assert changed == f"{path}/{made['metadata']['name']}"
    at = "2025-11-21T16:00:00.250000Z"
    assert series == {"series": {"count": 2, "lastObservedTime": at}}
    bench.now += SERIES_SECONDS + 1
    assert bench.record(TAKEN) == ["POST"]


def test_an_event_that_has_expired_is_made_anew() -> None:
    """The API server forgets them after an hour, or when somebody deletes them."""
    bench = Bench(None, Failed("not found", 404))
    assert bench.record(TAKEN, TAKEN, TAKEN) == ["POST", "PATCH", "POST", "PATCH"]


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        ([Failed("no connection")], 2),
        ([Failed("busy", 503), Failed("slow down", 429)], 3),
        ([Failed("down", 500)] * 4, 4),
        ([Failed("forbidden", 403)], 1),
        ([Failed("invalid", 422)], 1),
    ],
)
def test_what_is_not_taken(answers: list[Failed], tries: int) -> None:
    """Tried again where it may help, and then dropped; the next one is sent all the same."""
    bench = Bench(*answers)
    assert bench.record(TAKEN) == ["POST"] * tries
    assert len(bench.pauses) == tries - 1 if tries < 4 else 3
    assert bench.recorder.dropped == (answers[-1].code in (500, 403, 422))
    assert bench.record(of_node("n1", "Starting")) == ["POST"]


def test_a_flood_is_cut_off() -> None:
    """A burst, and then one in ten seconds; the rest is counted."""
    bench = Bench()
    flood = [TAKEN._replace(note=str(number)) for number in range(BURST + 10)]
    assert len(bench.record(*flood)) == BURST
    assert bench.recorder.dropped == 10
    bench.now += 20.0
    assert len(bench.record(*flood)) == 2


def test_a_server_that_hangs_holds_up_nobody() -> None:
    """Recording goes on at once; the farewell waits no longer than it may."""
    release: queue.Queue[None] = queue.Queue()
    recorder = Recorder(lambda *_: release.get(), "h")
    for number in range(BURST):
        recorder.record(TAKEN._replace(note=str(number)))
    recorder.flush(0.05)
    for _ in range(BURST):
        release.put(None)
    recorder.flush(5.0)


def test_without_a_server_there_are_none() -> None:
    """Services from manifests: no thread, no queue."""
    recorder = Recorder(None, "h")
    recorder.record(TAKEN)
    recorder.flush(5.0)
    assert recorder.dropped == 0


def test_what_a_turn_has_to_report() -> None:
    """Failing services, and our own annotations; other refusals are the log's and the status'."""
    subject = str(Key(Kind.SERVICE, *WEB))
    turn = Turn(
        causes={}, services=(), first=False,
        refused=[
            Refused(subject, "annotation 'tidegate.io/weight': 'x' is no number"),
            Refused(subject, "spec.ports[0].port: missing"),
            Refused("EndpointSlice shop/web-1", "annotation 'x'"),
        ],
        failed={}, recovered=(), writes=0, seconds=0.0,
    )  # fmt: skip
    note = "annotation 'tidegate.io/weight': 'x' is no number; the default holds"
    assert list(of_turn(turn)) == [of_service(WEB, "InvalidAnnotation", "Read", note)]


def test_a_weight_that_cannot_be_read_is_an_event_of_its_pod() -> None:
    """As one of a Service is an event of that."""
    reason = "annotation tidegate.io/weight: 'x' is not a weight of 1 to 100"
    turn = Turn(
        causes={}, services=(), first=False, refused=[Refused("Pod default/web-0", reason)],
        failed={}, recovered=(), writes=0, seconds=0.0,
    )  # fmt: skip
    assert list(of_turn(turn)) == [
        Event(
            "Pod", "default", "web-0", "Warning", "InvalidAnnotation", "Read",
            f"{reason}; the default holds",
        )
    ]  # fmt: skip


def test_a_bandwidth_that_cannot_be_read_is_an_event_of_its_pod() -> None:
    """A warning, with what is wrong; what an operator of the pod sees by `kubectl describe`."""
    reason = "kubernetes.io/egress-bandwidth: '10Mbit' is no quantity"
    turn = Turn(
        causes={}, services=(), first=False, refused=[Refused("Pod default/web-0", reason)],
        failed={}, recovered=(), writes=0, seconds=0.0,
    )  # fmt: skip
    assert list(of_turn(turn)) == [
        Event("Pod", "default", "web-0", "Warning", "InvalidAnnotation", "Limit", reason)
    ]


def test_a_host_port_that_another_has_is_an_event_of_its_pod() -> None:
    """And not of a Service that nobody has."""
    unit = Unit(service_name("default", "web-0"), "8080", Protocol.TCP, Family.IPV4)
    turn = Turn(
        causes={}, services=(), first=False, refused=(), failed={unit: "taken"}, recovered=(),
        writes=0, seconds=0.0,
    )  # fmt: skip
    (event,) = of_turn(turn)
    assert event[:5] == ("Pod", "default", "web-0", "Warning", "FailedToProgramService")
    assert event.note.endswith(": taken")


def test_a_real_client_is_understood(api: ApiServer, tmp_path: Path) -> None:
    """Over TLS and HTTP: created, counted, and nothing in it that the API would refuse."""
    found = api.kubeconfig(tmp_path / "kubeconfig")
    source = KubernetesSource(kubeconfig=str(found), master="", node_name="n1")
    recorder = Recorder(source.api.send, "h")
    send: Callable[..., None] = source.api.send
    for event in (TAKEN, TAKEN, of_node("n1", "Starting")):
        recorder.record(event)
    recorder.flush(10.0)
    service, node = api.events.all.values()
    assert (service["reason"], service["series"]["count"]) == (TAKEN.reason, 2)
    assert (node["reason"], "series" in node) == ("Starting", False)
    assert api.events.faults == []
    with pytest.raises(Failed, match="422"):
        send("POST", "/apis/events.k8s.io/v1/namespaces/other/events",
             json.dumps(body(TAKEN, NOW, "h")).encode())  # fmt: skip
