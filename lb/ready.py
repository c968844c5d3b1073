"""Tells the service manager that the agent is ready (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("tidegate")


def announce(path: str | None = None) -> None:
    """READY=1 to `path`, by default where NOTIFY_SOCKET says; nobody may listen there any more."""
    path = os.environ.get("NOTIFY_SOCKET") if path is None else path
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1\n", address)
    except OSError as error:
        log.warning("could not tell the service manager at %s: %s", path, error)
