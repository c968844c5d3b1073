"""Listening sockets that come and go, all waited on by one thread; any address may be refused.

What is wanted is given as a whole, and compared with what is open. An address that cannot be had
is told once and tried again. Each connection is one request, answered in a thread of its own that
lives for that long: a slow client holds up nobody else.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from lb.serving.answer import EVERYWHERE, Answer, Place

log = logging.getLogger("tidegate.serving")

RETRY_SECONDS = 5.0
"""Before an address that could not be had is tried again: kube-proxy's pause."""
CLIENT_SECONDS = 5.0
"""That a client may be silent."""
FULL_SECONDS = 0.2
"""Before somebody waiting is looked at again, when there are no descriptors left for them."""
MOST = 32
"""Connections of one socket at a time; the next ones are closed at once."""


class Listeners:
    """`failed` is told of an address and why it cannot be had, from the thread that listens."""

    def __init__(self, failed: Callable[[Place, str], None] = lambda *_: None) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._wanted: dict[str, dict[Place, Answer]] = {}
        self._doors: dict[Place, _Door] = {}
        self._errors: dict[Place, str] = {}
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._ear, self._bell = socket.socketpair()
        for end in (self._ear, self._bell):
            end.settimeout(0)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)

    def start(self) -> None:
        """Listen, from one thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything; returns once it is closed."""
        self._ending = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        self._ear.close()
        self._bell.close()

    def want(self, group: str, places: Mapping[Place, Answer]) -> None:
        """From now on these, for all that was asked for under that name before."""
        with self._lock:
            if self._wanted.get(group) == places:
                return
            self._wanted[group] = dict(places)
        self._ring()

    def errors(self, group: str) -> dict[Place, str]:
        """The places of a group that could not be had, and why."""
        with self._lock:
            wanted = self._wanted.get(group, {})
            return {place: text for place, text in self._errors.items() if place in wanted}

    def _ring(self) -> None:
        with suppress(OSError):  # it rings already, or all is over
            self._bell.send(b"!")

    def _run(self) -> None:
        while not self._ending:
            self._match()
            pause = RETRY_SECONDS if self._errors else None
            for key, _ in self._selector.select(pause):
                if key.fileobj is self._ear:
                    self._ear.recv(4096)
                else:
                    key.data.handle_request()
        for place in list(self._doors):
            self._close(place)

    def _match(self) -> None:
        with self._lock:
            wanted = {
                place: answer for group in self._wanted.values() for place, answer in group.items()
            }
        for place in self._doors.keys() - wanted.keys():
            self._close(place)
        errors = {}
        for place, answer in wanted.items():
            if place in self._doors:
                self._doors[place].answer = answer
            elif error := self._open(place, answer):
                errors[place] = error
        with self._lock:
            before, self._errors = self._errors, errors
        for place, error in errors.items():
            if before.get(place) != error:
                self._failed(place, error)
        for place in before.keys() & self._doors.keys():
            log.info("%s is free now", place)

    def _open(self, place: Place, answer: Answer) -> str:
        """Empty, or why not."""
        try:
            door = _Door(place, answer)
        except OSError as error:
            return error.strerror or str(error)
        self._doors[place] = door
        self._selector.register(door, selectors.EVENT_READ, door)
        return ""

    def _close(self, place: Place) -> None:
        door = self._doors.pop(place)
        self._selector.unregister(door)
        door.server_close()


class _Door(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One listening socket. Raises OSError if the address cannot be had."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False
    timeout = 0  # `handle_request` is called when somebody is there

    def __init__(self, place: Place, answer: Answer) -> None:
        self.answer = answer
        self._room = threading.BoundedSemaphore(MOST)
        self._v6only = place.address != EVERYWHERE
        address = place.address or "::"
        try:
            self._listen(address, place.port)
        except OSError as error:
            if place.address != EVERYWHERE or error.errno != errno.EAFNOSUPPORT:
                raise
            self._listen("0.0.0.0", place.port)  # a kernel without IPv6

    def _listen(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)
        self.socket.settimeout(0)  # who asked may be gone before it is taken

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self._v6only)
        super().server_bind()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(FULL_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, *_: object) -> None:
        """A client that went away is its own business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SECONDS
    server: _Door

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # as kube-proxy: any method
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        response = self.server.answer(urlsplit(self.path).path)
        self.send_response_only(response.code)
        for name, value in (
            ("Content-Type", response.type),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
            ("Date", self.date_time_string()),
            ("Content-Length", str(len(response.body))),
            # Nobody keeps a thread by keeping a connection.
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, *_: object) -> None:
        """Questions are not events."""
