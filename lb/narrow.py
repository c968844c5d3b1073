"""The rows of `show` that somebody asked for: of one service, or about one address.

Pure. Not for finding rows: `show` has made them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lb.address import parse, show
from lb.errors import BadInput

Row = dict[str, Any]

_WHERE = ("address", "client", "frontend", "backend")
"""Fields that hold an address, with or without a port."""
_LISTS = ("frontends", "backends")


def narrowed(what: str, rows: list[Row], service: str | None, address: str | None) -> list[Row]:
    """The rows of `service`, as NAMESPACE/NAME, that name `address`; None asks for all.

    Raises BadInput for a text that is neither, and for rows of no service: drops and maps.
    """
    for flag, given in (("--service", service), ("--address", address)):
        if given is not None and what in ("drops", "maps"):
            raise BadInput(f"{flag} {given}: {what} are those of all services")
    if service is not None:
        namespace, slash, name = service.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise BadInput(f"--service {service}: write NAMESPACE/NAME")
        rows = [row for row in rows if (row["namespace"], row["name"]) == (namespace, name)]
    if address is not None:
        try:
            wanted = show(parse(address))
        except BadInput as error:
            raise BadInput(f"--address: {error}") from error
        rows = [row for row in rows if wanted in _addresses(row)]
    return rows


def _addresses(row: Row) -> Iterator[str]:
    for field in _WHERE:
        if field in row:
            yield _without_port(row[field])
    for field in _LISTS:
        for one in row.get(field, ()):
            yield one["address"]


def _without_port(text: str) -> str:
    """`[fd00::1]:80`, `10.0.0.1:80` or a bare address of either family, to the address."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
