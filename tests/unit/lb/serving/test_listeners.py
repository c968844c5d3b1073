"""Sockets that come and go: served from one thread, on both families, and taken addresses told."""

from __future__ import annotations

import errno
import http.client
import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lb.serving import listeners
from lb.serving.answer import EVERYWHERE, Answer, Place, Response, asked_for
from lb.serving.listeners import Listeners
from tests.bed.process import until as wait


@pytest.fixture
def serving() -> Iterator[Listeners]:
    """Started, and stopped."""
    found = Listeners()
    found.start()
    yield found
    found.stop()


def free_port(family: int = socket.AF_INET6) -> int:
    """A port that nobody listens on."""
    with closing(socket.socket(family)) as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def says(text: bytes) -> Answer:
    """An answer of that body, with its path."""
    return lambda path: Response(text + path.encode(), 200, "application/json", (("X-A", "1"),))


def ask(host: str, port: int, path: str = "/x", method: str = "GET") -> tuple[int, bytes]:
    """Code and body; raises OSError where nobody listens."""
    with closing(http.client.HTTPConnection(host, port, timeout=5)) as one:
        one.request(method, path)
        response = one.getresponse()
        return response.status, response.read()


def until(sure: Callable[[], bool], what: str) -> None:
    """Wait for it, for some seconds."""
    wait(sure, what, timeout=5.0)


def is_open(host: str, port: int) -> bool:
    """Whether a connection is taken."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        (EVERYWHERE, {"127.0.0.1", "::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::", {"::1"}),
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
    ],
)
def test_it_listens_there_and_nowhere_else(
    serving: Listeners, address: str, hosts: set[str]
) -> None:
    """Both families at once where asked for everywhere."""
    port = free_port()
    serving.want("a", {Place(address, port): says(b"hi ")})
    (first, *_) = sorted(hosts)
    until(lambda: is_open(first, port), "open")
    for host in ("127.0.0.1", "::1"):
        assert is_open(host, port) is (host in hosts)
    assert ask(first, port) == (200, b"hi /x")


def test_a_kernel_without_ipv6_serves_ipv4(
    serving: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everywhere is then all of IPv4."""
    made = socket.socket

    def make(family: int, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *more)

    monkeypatch.setattr("socketserver.socket.socket", make)
    port = free_port(socket.AF_INET)
    serving.want("a", {Place(EVERYWHERE, port): says(b"hi ")})
    until(lambda: not serving.errors("a") and port in _listening(), "open")
    monkeypatch.undo()
    assert ask("127.0.0.1", port) == (200, b"hi /x")


def _listening() -> set[int]:
    """Ports of this network namespace that somebody listens on over IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"}


def test_a_flag_that_names_any_address_means_both_families() -> None:
    """As Go's listeners read 0.0.0.0."""
    assert asked_for("0.0.0.0", 1) == asked_for("::", 1) == Place(EVERYWHERE, 1)
    assert asked_for("127.0.0.1", 1) == Place("127.0.0.1", 1)


def test_the_answer_on_the_wire(serving: Listeners) -> None:
    """Status line and headers, in their order; the connection ends with it."""
    port = free_port()
    serving.want("a", {Place("127.0.0.1", port): says(b"hi ")})
    until(lambda: is_open("127.0.0.1", port), "open")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n")
        raw = b"".join(iter(lambda: one.recv(4096), b"")).decode()
    head, _, body = raw.partition("\r\n\r\n")
    lines = [line for line in head.split("\r\n") if not line.startswith("Date: ")]
    assert lines == [
        "HTTP/1.1 200 OK", "Content-Type: application/json", "X-Content-Type-Options: nosniff",
        "X-A: 1", "Content-Length: 5", "Connection: close",
    ]  # fmt: skip
    assert len(head.split("\r\n")) == len(lines) + 1
    assert body == "hi /a"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "BREW"])
def test_any_method_is_answered(serving: Listeners, method: str) -> None:
    """As kube-proxy does; HEAD without a body."""
    port = free_port()
    serving.want("a", {Place("127.0.0.1", port): says(b"")})
    until(lambda: is_open("127.0.0.1", port), "open")
    assert ask("127.0.0.1", port, method=method) == (200, b"" if method == "HEAD" else b"/x")


def test_what_is_no_longer_wanted_closes(serving: Listeners) -> None:
    """Groups do not disturb each other, and an answer may change without a gap."""
    one, two = Place("127.0.0.1", free_port()), Place("127.0.0.1", free_port())
    serving.want("a", {one: says(b"1")})
    serving.want("b", {two: says(b"2")})
    until(lambda: is_open(*one) and is_open(*two), "open")
    serving.want("a", {})
    until(lambda: not is_open(*one), "closed")
    serving.want("b", {two: says(b"3")})
    until(lambda: ask(*two) == (200, b"3/x"), "the new answer")
    serving.stop()
    assert not is_open(*two)


def test_a_taken_address_is_told_once_and_had_when_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served meanwhile."""
    monkeypatch.setattr(listeners, "RETRY_SECONDS", 0.05)
    told: queue.Queue[tuple[Place, str]] = queue.Queue()
    serving = Listeners(lambda *what: told.put(what))
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken, free = Place(*other.getsockname()), Place("127.0.0.1", free_port())
        serving.want("a", {taken: says(b"1"), free: says(b"2")})
        serving.start()
        assert told.get(timeout=5) == (taken, "Address already in use")
        assert serving.errors("a") == {taken: "Address already in use"}
        assert serving.errors("b") == {}
        assert ask(*free) == (200, b"2/x")
    until(lambda: not serving.errors("a"), "the address")
    assert ask(*taken) == (200, b"1/x")
    serving.stop()
    assert told.empty()


def test_slow_clients_hold_up_nobody(serving: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a thread each, up to a limit of each socket; beyond that, others go on too."""
    monkeypatch.setattr(listeners, "MOST", 2)
    slow, quick = Place("127.0.0.1", free_port()), Place("127.0.0.1", free_port())
    serving.want("a", {slow: says(b"1"), quick: says(b"2")})
    until(lambda: is_open(*slow) and is_open(*quick), "open")
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(slow, timeout=5)) for _ in range(5)]
        assert ask(*quick) == (200, b"2/x")
        assert sum(map(_is_closed, held)) >= 3
    until(lambda: _asks(slow), "room again")


def _is_closed(one: socket.socket) -> bool:
    one.settimeout(0.2)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _asks(place: Place) -> bool:
    try:
        return ask(*place)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_garbage_harms_nobody(serving: Listeners) -> None:
    """It is answered with 400, or not at all."""
    place = Place("127.0.0.1", free_port())
    serving.want("a", {place: says(b"1")})
    until(lambda: is_open(*place), "open")
    for raw in (b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"\r\n", b"x" * 70000 + b"\r\n\r\n"):
        with socket.create_connection(place, timeout=5) as one:
            one.sendall(raw)
            one.shutdown(socket.SHUT_WR)
            try:
                answer = b"".join(iter(lambda: one.recv(4096), b""))
            except ConnectionError:
                answer = b""
        assert not answer or b" 40" in answer or b" 414" in answer or b"Error" in answer
    assert ask(*place) == (200, b"1/x")
