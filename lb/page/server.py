"""Serves the page on loopback: one file, and the facts as JSON. Only GET; nothing is changed.

A browser may be led here by a foreign site (DNS rebinding), so the Host header has to be this very
address; and the page may load nothing from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lb.config import Listen
from lb.errors import BadInput, TidegateError
from lb.page.facts import Facts

log = logging.getLogger("tidegate.page")
_PAGE = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if not self.server.is_own(self.headers.get("Host", "")):
            self._send(403, "text/plain", b"ask for the page by its address\n")
            return
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/":
            self._send(200, "text/html; charset=utf-8", _PAGE.read_bytes())
            return
        try:
            found = self._answer(url.path, query)
        except TidegateError as error:
            self._json(400 if isinstance(error, BadInput) else 500, {"error": str(error)})
        except (OSError, KeyError) as error:
            self._json(500, {"error": str(error)})
        else:
            self._json(404 if found is None else 200, found or {"error": "no such path"})

    def _answer(self, path: str, query: dict[str, str]) -> Any:
        facts = self.server.facts
        match path:
            case "/facts":
                return facts.all()
            case "/rings":
                named = [query.get(one, "") for one in ("namespace", "name", "port")]
                return {"rings": facts.rings(*named)}
            case "/explain":
                return facts.explain(query)
        return None

    def _json(self, code: int, body: Any) -> None:
        self._send(code, "application/json", json.dumps(body).encode())

    def _send(self, code: int, kind: str, raw: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Questions are not events."""


class Server(ThreadingHTTPServer):
    """The page at an address. Raises OSError if that cannot be had."""

    daemon_threads = True

    def __init__(self, at: Listen, facts: Facts) -> None:
        self.facts = facts
        self.address_family = socket.AF_INET6 if ":" in at.address else socket.AF_INET
        super().__init__((at.address, at.port), _Handler)
        shown = f"[{at.address}]" if ":" in at.address else at.address
        port = self.server_address[1]
        self._hosts = {f"{shown}:{port}", f"localhost:{port}"}

    def is_own(self, host: str) -> bool:
        """Was the page asked for by its own address?"""
        return host in self._hosts

    def handle_error(self, *_: object) -> None:
        """A browser that went away is its own business."""


def serve(at: Listen, facts: Facts) -> None:
    """Answers from a thread; an address that cannot be had is a warning."""
    try:
        server = Server(at, facts)
    except OSError as error:
        log.warning("no page: %s port %d: %s", at.address, at.port, error.strerror or error)
        return
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    log.info("page at http://%s:%d/", at.address, at.port)
