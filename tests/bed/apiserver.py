"""A stand-in API server: list and watch over TLS, and every fault that a client must survive.

In a test's own process it is `ApiServer`, changed by its methods. As a program on a host of the
bed (`python -m tests.bed.apiserver --help`) it serves a directory of manifests, and follows it.
Its only client is a node's proxy, which may do what that role may (`tests.bed.apiroles`).
Nothing is written over HTTP but events: just what the product needs.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.bed import apievents
from tests.bed.apifollow import follow
from tests.bed.apihttp import Http, cut
from tests.bed.apiroles import NODE_PROXIER, POD_READER, Rules, allowed
from tests.bed.apistore import PATHS, Matches, Store, Watch, bookmark, event, selector
from tests.bed.authority import Authority
from tests.bed.kubeconfig import write_kubeconfig

_Loader = yaml.CSafeLoader
_GONE = event("ERROR", b'{"kind":"Status","code":410,"reason":"Expired","message":"too old"}')


class Request(NamedTuple):
    """A request that came. `resource` is the last part of its path."""

    resource: str
    query: dict[str, str]
    token: str

    @property
    def watch(self) -> bool:
        """Whether it asks for a stream."""
        return self.query.get("watch") == "true"


class Refusal(NamedTuple):
    """An answer in place of the right one, for requests to come."""

    code: int
    resource: str
    watch: bool | None
    retry_after: int | None


class ApiServer:
    """Listens from `start` to `stop`, on the same port each time; a context manager does both.

    `tokens`: those that are let in; None lets in everybody.
    """

    def __init__(
        self, address: str = "127.0.0.1", port: int = 0, folder: Path | None = None
    ) -> None:
        self.address, self.port = address, port
        self.authority = Authority(address, folder)
        self.store = Store()
        self.events = apievents.Events()
        self.tokens: set[str] | None = None
        self.rules: Rules = NODE_PROXIER
        """Whatever else is asked for gets a 403."""
        self.refused_selectors: set[str] = set()
        """Field selectors that this server does not know: 400."""
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.watches: list[Watch] = []
        self.connections: set[socket.socket] = set()
        self.forget_pages = 0
        """How many continue tokens to have forgotten when they are used: 410."""
        self.broken_lists = 0
        """How many lists to break off half-way."""
        self.delay = 0.0
        """Seconds before each answer, and before each lot of events."""
        self.pages: dict[str, tuple[int, list[bytes]]] = {}
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._http = Http((self.address, self.port), _Handler)
        self._http.api = self  # type: ignore[attr-defined]
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and end those there are; again is harmless."""
        if self._http is None:
            return
        self._http.shutdown()
        self._http.socket.close()
        with self.store.changed:
            for watch in self.watches:
                watch.ended = True
            connections = list(self.connections)
            self.store.changed.notify_all()
        for connection in connections:
            cut(connection)
        self._http.server_close()  # waits for the threads of all connections
        self._http = None

    def kubeconfig(self, path: Path, *, authority: Path | None = None, **user: str) -> Path:
        """Write a kubeconfig that leads here; `user` is the user's entry, `_` for `-`.

        `authority`: the file that is to hold the authority; else it is part of the kubeconfig.
        """
        return write_kubeconfig(path, self.url, authority or self.authority.pem, user)

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"

    def refuse(
        self,
        code: int,
        resource: str = "",
        *,
        watch: bool | None = None,
        times: int = 1,
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests with `code`; for any resource, any sort, unless given."""
        self.refusals += [Refusal(code, resource, watch, retry_after)] * times

    def say(self, resource: str, *lines: bytes) -> None:
        """Send raw lines to the open watches of a resource, at once."""
        with self.store.changed:
            for watch in self._open(resource):
                watch.lines += lines
            self.store.changed.notify_all()

    def expire_watches(self, resource: str) -> None:
        """Send the 410 that a stream may hold."""
        self.say(resource, _GONE)

    def bookmark(self, resource: str) -> None:
        """Send the present version to the open watches of a resource."""
        self.say(resource, bookmark(self.store.version))

    def end(self, resource: str) -> None:
        """Let the open watches end in order, as when their time is up."""
        with self.store.changed:
            for watch in self._open(resource):
                watch.ended = True
            self.store.changed.notify_all()

    def drop(self, resource: str) -> None:
        """Cut the connections of the open watches."""
        with self.store.changed:
            for watch in self._open(resource):
                watch.ended = watch.silent = True
                cut(watch.connection)
            self.store.changed.notify_all()

    def mute(self, resource: str) -> None:
        """Never say anything again on the open watches, and leave them open."""
        with self.store.changed:
            for watch in self._open(resource):
                watch.silent = True

    def count(self, resource: str, *, watch: bool) -> int:
        """How many requests of that sort came so far."""
        return sum(one.resource == resource and one.watch == watch for one in self.requests)

    def watched(self, resource: str) -> bool:
        """Whether somebody who can hear it watches a resource."""
        with self.store.changed:
            return any(not watch.silent for watch in self._open(resource))

    def _open(self, resource: str) -> list[Watch]:
        return [watch for watch in self.watches if watch.resource == resource]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    @property
    def api(self) -> ApiServer:
        return cast("ApiServer", cast("Any", self.server).api)

    def setup(self) -> None:
        # Here, in the connection's own thread: a client that never shakes hands holds up nobody.
        raw = self.request
        raw.settimeout(None)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.api.connections.add(raw)
        try:
            self.request = self.api.authority.context.wrap_socket(raw, server_side=True)
        finally:
            self.api.connections.discard(raw)
        self.api.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.api.connections.discard(self.request)
        with suppress(OSError):
            super().finish()
        self.request.close()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        path, kind = urlsplit(self.path).path, self.headers["Content-Type"]
        may = allowed(self.api.rules, self.command, path, {})
        self._status(self.api.events.write(self.command, path, kind, raw) if may else 403)

    do_PATCH = do_POST  # noqa: N815 - http.server's word

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(url.path.rpartition("/")[2], dict(parse_qsl(url.query)), token)
        if url.path == apievents.LIST:
            self._answer(self.api.events.text())
            return
        self.api.requests.append(request)
        time.sleep(self.api.delay)
        refusal = self._refusal(request)
        if refusal is not None:
            self._status(refusal.code, refusal.retry_after)
        elif self.api.tokens is not None and token not in self.api.tokens:
            self._status(401)
        elif url.path not in PATHS.values():
            self._status(404)
        elif not allowed(self.api.rules, "GET", url.path, request.query):
            self._status(403)
        else:
            fields = request.query.get("fieldSelector", "")
            matches = selector(request.query.get("labelSelector", ""), fields)
            if fields in self.api.refused_selectors:
                self._status(400)
            elif request.watch:
                self._watch(url.path, request, matches)
            else:
                self._list(url.path, request.query, matches)

    def _refusal(self, request: Request) -> Refusal | None:
        for refusal in self.api.refusals:
            if refusal.resource in ("", request.resource) and refusal.watch in (
                None,
                request.watch,
            ):
                self.api.refusals.remove(refusal)
                return refusal
        return None

    def _status(self, code: int, retry_after: int | None = None) -> None:
        body = json.dumps({"kind": "Status", "code": code, "message": f"as told: {code}"}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, path: str, query: dict[str, str], matches: Matches) -> None:
        if token := query.get("continue"):
            if self.api.forget_pages:
                self.api.forget_pages -= 1
                del self.api.pages[token]
            if token not in self.api.pages:
                self._status(410)
                return
            version, texts = self.api.pages.pop(token)
        else:
            version, texts = self.api.store.list(path, matches)
        limit = int(query.get("limit", "0")) or len(texts)
        meta = {"resourceVersion": str(version)}
        if texts[limit:]:
            meta["continue"] = base64.b64encode(f"{path} {version} {len(texts)}".encode()).decode()
            self.api.pages[meta["continue"]] = (version, texts[limit:])
        body = b'{"kind":"List","metadata":%s,"items":[%s]}\n' % (
            json.dumps(meta).encode(),
            b",".join(texts[:limit]),
        )
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.api.broken_lists:
            self.api.broken_lists -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            cut(self.connection)
            return
        self.wfile.write(body)

    def _watch(self, path: str, request: Request, matches: Matches) -> None:
        store = self.api.store
        watch = Watch(request.resource, self.connection)
        deadline = time.monotonic() + float(request.query.get("timeoutSeconds", "3600"))
        version = int(request.query["resourceVersion"])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        with store.changed:
            self.api.watches.append(watch)
            if not store.knows(version):
                watch.lines.append(_GONE)
                watch.deaf = watch.ended = True
        try:
            while True:
                with store.changed:
                    lines = self._news(watch, path, version, matches)
                    version = store.version
                    if not lines:
                        left = deadline - time.monotonic()
                        if watch.ended or left < 0:
                            break
                        store.changed.wait(left)
                        continue
                time.sleep(self.api.delay)
                for line in lines:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        finally:
            with store.changed:
                self.api.watches.remove(watch)

    def _news(self, watch: Watch, path: str, version: int, matches: Matches) -> list[bytes]:
        """What a watch has to send; the caller holds the condition."""
        lines = self.api.store.since(path, version, matches)
        lines = watch.lines if watch.deaf else lines + watch.lines
        watch.lines = []
        return [] if watch.silent else lines


def main() -> None:
    """Serve until killed; the kubeconfig is written once the server listens and is filled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--manifests", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="keeps certificates, kubeconfig")
    parser.add_argument("--pods", action="store_true", help="clients may read pods, too")
    arguments = parser.parse_args()
    server = ApiServer(arguments.address, arguments.port, arguments.folder)
    server.rules = {**server.rules, **(POD_READER if arguments.pods else {})}
    threading.Thread(target=follow, args=(server, arguments.manifests), daemon=True).start()
    with server.store.changed:
        server.store.changed.wait_for(lambda: server.store.filled)
    server.start()
    part = server.kubeconfig(arguments.folder / ".kubeconfig")
    part.rename(arguments.folder / "kubeconfig")
    threading.Event().wait()


if __name__ == "__main__":
    main()
