"""An HTTP answer that is read as it comes: whole, or what is there by now.

Any failure of the transport is one line in a `Failed`. Not for what the bytes mean.
"""

from __future__ import annotations

import select
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Self

from urllib3.exceptions import HTTPError, SSLError
from urllib3.response import BaseHTTPResponse

from lb.sources.reflector import Failed

TRANSPORT = (HTTPError, OSError, ValueError)
"""What urllib3 raises; ValueError for a header that is none, and for a socket shut meanwhile."""
_PIECE = 1 << 16
_MOST = 1 << 20
"""Bytes after which `available` comes back although there is more."""


class Stream:
    """A response whose body was not read yet; closed on leaving."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        self._poll: select.poll | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A body that was read whole has given its connection back already.
        self._response.close()

    def whole(self) -> bytes:
        """The body. Raises Failed."""
        try:
            return self._response.read()
        except TRANSPORT as error:
            raise Failed(explain(error)) from error

    def available(self) -> bytes:
        """Waits for more of the body, takes what is there; empty once it ended or broke.

        Every read of an event by itself would be a turn of the whole agent under a flood.
        """
        pieces: list[bytes] = []
        size = 0
        with suppress(*TRANSPORT):
            while size < _MOST and (piece := self._response.read1(_PIECE)):
                pieces.append(piece)
                size += len(piece)
                if not self._is_readable():
                    break
        return b"".join(pieces)

    def interrupt(self) -> None:
        """End a wait of another thread."""
        with suppress(*TRANSPORT, RuntimeError):  # closed by itself in the same moment
            self._response.shutdown()

    def _is_readable(self) -> bool:
        """Whether a read would find data; bytes that OpenSSL holds already may be missed."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._response.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))


def is_of_tls(error: Exception) -> bool:
    """Has one side refused the other's certificate, or what else TLS asks for?"""
    causes = (error, error.__cause__, error.__context__, *error.args)
    return any(isinstance(one, ssl.SSLError | SSLError) for one in causes)


def explain(error: Exception) -> str:
    """The cause in one line, without the names of Python objects."""
    for cause in (error.__cause__, *error.args, error):
        if isinstance(cause, OSError):
            return one_line(cause.strerror or str(cause) or type(cause).__name__)
    return one_line(str(error).rpartition(": ")[2])


def one_line(text: str, most: int = 300) -> str:
    """At most that many printable characters."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return shown if len(shown) <= most else shown[: most - 3] + "..."
