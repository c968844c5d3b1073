"""The values of a small HTTP server: where it listens, and what it answers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"
EVERYWHERE = ""
"""The address that stands for all addresses of both families."""


class Place(NamedTuple):
    """Where to listen. `0.0.0.0` and `::` are all of that one family only."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host or '*'}:{self.port}"


class Response(NamedTuple):
    """An answer; its length, its date and `X-Content-Type-Options: nosniff` go with it."""

    body: bytes
    code: int = 200
    type: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[str], Response]
"""From a path to what is answered. Called from any thread."""
NOT_FOUND = Response(b"404 page not found\n", 404)


def asked_for(address: str, port: int) -> Place:
    """What a flag names: an unspecified address is all of both families, as Go has it."""
    return Place(EVERYWHERE if address in ("0.0.0.0", "::") else address, port)
