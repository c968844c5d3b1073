"""The HTTP server beneath the stand-in API server."""

from __future__ import annotations

import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Http(ThreadingHTTPServer):
    """Whose handlers find the server's state as its `api`."""

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the look-up of a name that HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


def cut(connection: socket.socket) -> None:
    """End a connection as a broken cable would be noticed: no TLS farewell, no last chunk."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
