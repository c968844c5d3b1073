"""All ports together: what is asked for, what status says, and when a taken one ends the agent."""

from __future__ import annotations

import json
import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import msgspec
import pytest

from lb.config import Listen
from lb.errors import TidegateError
from lb.model import Node
from lb.serving.answer import Response
from lb.serving.ports import Ports
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.serving.test_listeners import ask, free_port, is_open, until
from tests.unit.lb.test_controller import Bench

Start = Callable[..., Ports]


@pytest.fixture
def bench() -> Bench:
    """A controller."""
    return Bench()


@pytest.fixture
def failures() -> queue.Queue[TidegateError]:
    """What would have ended the agent."""
    return queue.Queue()


@pytest.fixture
def start(bench: Bench, failures: queue.Queue[TidegateError]) -> Iterator[Start]:
    """Starts ports with other settings; they are stopped with the test."""
    with ExitStack() as stack:

        def started(**settings: object) -> Ports:
            one = msgspec.structs.replace(bench.controller.settings, **settings)
            ports = Ports(one, bench.controller, failures.put, lambda _: Response(b"m"))
            ports.start()
            stack.callback(ports.stop)
            return ports

        yield started


def test_healthz_follows_the_own_node(bench: Bench, start: Start) -> None:
    """Manifests need not name it; an API server must have shown it."""
    port = free_port()
    start(healthz=Listen("127.0.0.1", port))
    until(lambda: is_open("127.0.0.1", port), "open")
    bench.sync()
    codes = [ask("127.0.0.1", port, "/healthz")[0]]
    for leaving in (True, False):
        bench.apply(Node("n1", leaving=leaving))
        codes.append(ask("127.0.0.1", port, "/healthz")[0])
    assert codes == [200, 503, 200]
    assert ask("127.0.0.1", port, "/livez")[0] == 200


def test_a_node_that_the_api_server_does_not_show_is_not_eligible(
    bench: Bench, start: Start
) -> None:
    """Load balancers must not send it anything; nobody need restart the agent."""
    port = free_port()
    ports = start(healthz=Listen("127.0.0.1", port), manifests=None)
    until(lambda: is_open("127.0.0.1", port), "open")
    bench.sync()
    code, body = ask("127.0.0.1", port, "/healthz")
    assert (code, json.loads(body)["nodeEligible"]) == (503, False)
    assert ask("127.0.0.1", port, "/livez")[0] == 200
    assert ports.asked == {("/healthz", 503): 1, ("/livez", 200): 1}


def test_status_shows_each_port(bench: Bench, start: Start) -> None:
    """On, off, or why not; a health check is counted once its service is there."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = Listen(*other.getsockname())
        ports = start(healthz=taken, proxy_mode="iptables")
        until(lambda: ports.features()["healthz"]["state"] == "degraded", "the failure")
        check = free_port()
        bench.apply(service("web", "10.96.0.1", health_check_node_port=check))
        bench.apply(slice_of("web", "1 n1"))
        bench.sync()
        until(lambda: is_open("127.0.0.1", check), "open")
        assert ports.features() == {
            "healthz": {
                "state": "degraded",
                "reason": f"127.0.0.1:{taken.port}: Address already in use; tried again every 5 s",
                "at": f"127.0.0.1:{taken.port}",
            },
            "metrics": {"state": "off"},
            "health-checks": {"state": "on", "services": 1},
        }


def test_a_port_that_the_agent_must_have_ends_it(
    start: Start, failures: queue.Queue[TidegateError]
) -> None:
    """By `bindAddressHardFail`: one line that names the flag."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = Listen(*other.getsockname())
        start(metrics=taken, must_listen=True)
        found = str(failures.get(timeout=5))
    assert found == f"--metrics-bind-address 127.0.0.1:{taken.port}: Address already in use"


def test_health_checks_wait_for_the_first_full_state(bench: Bench, start: Start) -> None:
    """A count of endpoints that are not all known yet would drain the node."""
    port = free_port()
    start(proxy_mode="iptables")
    bench.apply(service("web", "10.96.0.1", health_check_node_port=port))
    assert not is_open("127.0.0.1", port)
    bench.apply(slice_of("web", "1 n1"))
    bench.sync()
    until(lambda: is_open("127.0.0.1", port), "open")
    assert ask("127.0.0.1", port)[0] == 200
