"""The agent's door for the command line: HTTP over a unix socket of mode 0600.

`GET /status`, with `?after=N` answered once the revision is above N; `GET /verify`. Read only.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[dict[str, str]], Any]
"""From the query's parameters to what becomes JSON. Raises ValueError for a bad query."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer = self.server.answers.get(url.path)
        if answer is None:
            self._send(404, {"error": f"no such path: {url.path}"})
            return
        try:
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            self._send(200, answer(query))
        except ValueError as error:
            self._send(400, {"error": str(error)})
        except OSError as error:
            self._send(500, {"error": str(error)})

    def _send(self, code: int, body: Any) -> None:
        raw = json.dumps(body).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Questions are not events."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers by path. Raises OSError if the socket cannot be made."""

    daemon_threads = True

    def __init__(self, path: Path, answers: dict[str, Answer]) -> None:
        self.answers = answers
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():  # left behind: the caller holds the lock on the pins
            path.unlink()
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(before)

    def handle_error(self, *_: object) -> None:
        """A client that went away is its own business."""

    def start(self) -> None:
        """Serve from a thread."""
        threading.Thread(target=self.serve_forever, name="api", daemon=True).start()
