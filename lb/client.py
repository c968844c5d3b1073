"""Asks a running agent, over its unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from lb.errors import AgentUnreachable, BadInput


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, question: str, *, timeout: float = 30.0) -> Any:
    """The JSON that the agent answers to `GET question`. Raises AgentUnreachable, BadInput."""
    connection = _Connection(path, timeout)
    try:
        connection.request("GET", question)
        answer = connection.getresponse()
        body = answer.read()
        found = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AgentUnreachable(
            f"no agent answers on {path} ({reason}); is one running? "
            "name its socket with --api-socket"
        ) from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise BadInput(f"the agent on {path} does not answer {question}: {found['error']}")
    return found
