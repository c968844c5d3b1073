"""A stand-in for `tidegate agent` that shows what the bed hands over: no data path at all.

Its revision is a count of the changes it saw in the directory of manifests, by inotify. With the
flag `--fail` it ends before it is ready; any other command prints its arguments as JSON.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from inotify_simple import INotify
from inotify_simple import flags as events


class Status:
    """The revision, and what waits for it."""

    def __init__(self) -> None:
        self.revision = 1
        self.changed = threading.Condition()

    def advance(self) -> None:
        """One more change was applied."""
        with self.changed:
            self.revision += 1
            self.changed.notify_all()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /status, at once or after a revision."""

    status: Status

    def do_GET(self) -> None:
        """Wait if asked to, then answer."""
        after = int(parse_qs(urlsplit(self.path).query).get("after", ["0"])[0])
        with self.status.changed:
            self.status.changed.wait_for(lambda: self.status.revision > after)
            body = json.dumps({"revision": self.status.revision, "argv": sys.argv[1:]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A unix peer has none."""
        return "-"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """HTTP on a unix socket."""

    daemon_threads = True


def agent(flags: dict[str, str]) -> None:
    """Be ready, then watch and answer for ever."""
    status = Handler.status = Status()
    Path(flags["--api-socket"]).unlink(missing_ok=True)
    server = Server(flags["--api-socket"], Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    watch = INotify()
    watch.add_watch(flags["--manifests"], events.MOVED_TO | events.DELETE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.send(b"STATUS=starting")
        notify.send(b"READY=1\nSTATUS=serving")
    while True:
        for event in watch.read():
            if not event.name.startswith("."):
                status.advance()


if __name__ == "__main__":
    if sys.argv[1] != "agent":
        print(json.dumps(sys.argv[1:]))  # noqa: T201
    elif "--fail" in sys.argv:
        sys.exit("manifests: no such directory")
    else:
        agent(dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True)))
