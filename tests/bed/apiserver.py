"""A stand-in Kubernetes API server: list and watch over TLS, and every way to fail that we know.

It holds objects as plain dictionaries, gives each change a version, and speaks what a client that
lists and watches needs: pages, selectors, bookmarks, 401, 410. It validates and stores nothing.

    with ApiServer() as server:
        server.put({"apiVersion": "v1", "kind": "Service", ...})
        KubernetesSource(kubeconfig=str(server.kubeconfig(tmp_path)), ...)
"""

from __future__ import annotations

import copy
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import trustme

Plain = dict[str, Any]

PATHS = {
    "/api/v1/services": ("v1", "Service"),
    "/apis/discovery.k8s.io/v1/endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
    "/api/v1/nodes": ("v1", "Node"),
}


class Request(NamedTuple):
    """What a client asked for."""

    kind: str
    query: dict[str, str]

    @property
    def is_watch(self) -> bool:
        """A watch, and no list."""
        return self.query.get("watch") == "true"


class Event(NamedTuple):
    """One change: the object before and after."""

    version: int
    kind: str
    old: Plain | None
    new: Plain | None


class Fault(NamedTuple):
    """Answers the next request that fits with a status instead; `times` of them."""

    code: int
    watch: bool | None
    kind: str | None
    times: int


class ApiServer:
    """Starts listening on 127.0.0.1 with the block; all its methods may be called at any time."""

    def __init__(self, *, token: str = "a-token") -> None:
        self.token = token
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        """Lines of watches that were written, by kind."""
        self.knows_fields = True
        self.page_limit = 500
        self.news = threading.Condition()
        self._objects: dict[tuple[str, str, str], Plain] = {}
        self._events: list[Event] = []
        self._version = 1
        self._oldest = 1
        self._lists: dict[str, tuple[int, list[Plain]]] = {}
        self._faults: list[Fault] = []
        self._connections: set[socket.socket] = set()
        self._generation = 0
        self._frozen = -1
        self._bookmarks = 0
        self._authority = trustme.CA()
        self._listener: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # What a test does to it.

    def put(self, item: Plain) -> None:
        """Create or change an object."""
        with self.news:
            self._change(_key(item), copy.deepcopy(item))

    def delete(self, item: Plain) -> None:
        """Delete an object."""
        with self.news:
            self._change(_key(item), None)

    def forget(self) -> None:
        """Lose the history, and the lists that are half read: what continues from them is gone."""
        with self.news:
            self._version += 1
            self._oldest = self._version
            self._events.clear()
            self._lists.clear()

    def bookmark(self) -> None:
        """Tell all watches the present version."""
        with self.news:
            self._version += 1
            self._bookmarks += 1
            self.news.notify_all()

    def fail(
        self, code: int, times: int = 1, *, watch: bool | None = None, kind: str | None = None
    ) -> None:
        """Answer that many requests (of that sort) with an error."""
        with self.news:
            self._faults.append(Fault(code, watch, kind, times))

    def drop(self) -> None:
        """Cut all connections; new ones are welcome."""
        with self.news:
            self._generation += 1
            for connection in self._connections:
                with suppress(OSError):
                    # The plain socket's own: TLS's would wait for a handler that is writing.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self.news.notify_all()

    def freeze(self) -> None:
        """Let the open watches hang: nothing comes through them any more, and nothing ends them."""
        with self.news:
            self._frozen = self._generation
            self._generation += 1

    def down(self) -> None:
        """Stop listening and cut everything: connections are refused."""
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        self._frozen = -1
        self.drop()

    def up(self) -> None:
        """Listen, on the same port as before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1").configure_cert(context)
        self._listener = _Listener(("127.0.0.1", self._port), self._handler())
        self._port = self._listener.server_address[1]
        self._listener.socket = context.wrap_socket(
            self._listener.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self._port}"

    def kubeconfig(self, directory: Path) -> Path:
        """A kubeconfig that leads here, its token in a file `token` beside it."""
        self._authority.cert_pem.write_to_path(str(directory / "ca.crt"))
        (directory / "token").write_text(self.token)
        path = directory / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": "ca.crt"}
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"tokenFile": "token"}}],
        }
        path.write_text(json.dumps(text))
        return path

    def count(self, kind: str, *, watch: bool) -> int:
        """How many requests of a sort were answered."""
        return sum(one.kind == kind and one.is_watch == watch for one in self.requests)

    # How it answers.

    def _change(self, key: tuple[str, str, str], new: Plain | None) -> None:
        old = self._objects.pop(key, None)
        self._version += 1
        if new is not None:
            new["metadata"]["resourceVersion"] = str(self._version)
            self._objects[key] = new
        self._events.append(Event(self._version, key[0], old, new))
        self.news.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with server.news:
                    server._connections.add(self.connection)

            def finish(self) -> None:
                with server.news:
                    server._connections.discard(self.connection)
                super().finish()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

            def do_GET(self) -> None:
                server._answer(self)

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        version, kind = PATHS.get(parts.path, ("", ""))
        request = Request(kind, query)
        with self.news:
            code = self._fault(request) if kind else 404
            if handler.headers["Authorization"] not in (
                f"Bearer {self.token}",
                f"bearer {self.token}",
            ):
                code = 401
            field = query.get("fieldSelector", "")
            if not code and field.startswith("spec.") and not self.knows_fields:
                code = 400
            body = None if code or request.is_watch else self._page(request)
            if body is None and not code and not request.is_watch:
                code = 410
            self.requests.append(request)
            # Made with the request, so that nothing a test does after seeing it is missed.
            lines = self._lines(request, self._generation, self._bookmarks)
            self.news.notify_all()
        if code:
            _send(handler, code, _status(code))
        elif body is not None:
            _send(handler, 200, {"apiVersion": version, "kind": f"{kind}List", **body})
        else:
            self._watch(handler, request, lines)

    def _fault(self, request: Request) -> int:
        for i, fault in enumerate(self._faults):
            if fault.watch in (None, request.is_watch) and fault.kind in (None, request.kind):
                self._faults[i : i + 1] = (
                    [fault._replace(times=fault.times - 1)] if fault.times > 1 else []
                )
                return fault.code
        return 0

    def _page(self, request: Request) -> Plain | None:
        """A part of a list; None: what it continues is gone."""
        resume = request.query.get("continue")
        if resume is None:
            name, start = str(len(self.requests)), 0
            # Items of a list do not repeat what kind they are.
            found = [
                {part: value for part, value in item.items() if part not in ("apiVersion", "kind")}
                for key, item in sorted(self._objects.items())
                if key[0] == request.kind and _selected(item, request.query)
            ]
            self._lists[name] = (self._version, found)
        else:
            name, _, offset = resume.partition(":")
            start = int(offset)
        if name not in self._lists:
            return None
        version, found = self._lists[name]
        end = start + min(self.page_limit, int(request.query.get("limit", len(found) + 1)))
        rest = {"continue": f"{name}:{end}"} if end < len(found) else {}
        return {"metadata": {"resourceVersion": str(version)} | rest, "items": found[start:end]}

    def _watch(
        self, handler: BaseHTTPRequestHandler, request: Request, lines: Iterator[Plain]
    ) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with suppress(OSError):
            for line in lines:
                data = json.dumps(line).encode() + b"\n"
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                with self.news:
                    self.sent[request.kind] += 1
                    self.news.notify_all()
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    def _lines(self, request: Request, generation: int, bookmarks: int) -> Iterator[Plain]:
        since = int(request.query["resourceVersion"])
        while True:
            with self.news:
                if generation == self._frozen:
                    self.news.wait()
                    continue
                if generation != self._generation:
                    return
                if since < self._oldest:
                    events, bookmark = [{"type": "ERROR", "object": _status(410)}], True
                else:
                    events = [
                        line
                        for event in self._events
                        if event.version > since and event.kind == request.kind
                        for line in _event(event, request.query)
                    ]
                    bookmark = bookmarks != self._bookmarks
                gone = since < self._oldest
                since = max(since, self._version)
                if bookmark and not gone:
                    bookmarks = self._bookmarks
                    metadata = {"resourceVersion": str(self._version)}
                    events.append({"type": "BOOKMARK", "object": {"metadata": metadata}})
                if not events:
                    self.news.wait()
                    continue
            yield from events
            if gone:
                return


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Cut connections are what it is for."""

    def shutdown_request(self, request: Any) -> None:
        """Without TLS's own farewell, which a cut connection cannot take."""
        self.close_request(request)


def _key(item: Plain) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _event(event: Event, query: dict[str, str]) -> Iterator[Plain]:
    """What a watch with these selectors sees: passing in or out of them is an add or a delete."""
    before = event.old is not None and _selected(event.old, query)
    after = event.new is not None and _selected(event.new, query)
    if before and not after:
        assert event.old is not None
        last = copy.deepcopy(event.old)
        last["metadata"]["resourceVersion"] = str(event.version)
        yield {"type": "DELETED", "object": last}
    elif after:
        yield {"type": "MODIFIED" if before else "ADDED", "object": event.new}


def _selected(item: Plain, query: dict[str, str]) -> bool:
    label, field = query.get("labelSelector", ""), query.get("fieldSelector", "")
    if label and label.removeprefix("!") in item["metadata"].get("labels", {}):
        return False
    if not field:
        return True
    path, _, wanted = field.replace("!=", "=").partition("=")
    value: Any = item
    for part in path.split("."):
        value = value.get(part) or {} if isinstance(value, dict) else {}
    return (value == wanted) != ("!=" in field)


def _status(code: int) -> Plain:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": f"made to say {code}"}


def _send(handler: BaseHTTPRequestHandler, code: int, body: Plain) -> None:
    data = json.dumps(body).encode()
    handler.send_response(code)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
