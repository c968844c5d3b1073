"""Collects what is left out of one object, and reads the small values that all objects share.

Each reader takes the field's name and its raw value, and answers None (with a note) instead of
raising, so that one malformed part never harms another. Not for whole objects: those are in
`lb.sources.convert`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable

from lb.address import ANY, Address, Prefix, parse, parse_prefix
from lb.errors import BadAddress
from lb.model import Key, Protocol, Refused

ANNOTATION = "annotation "
"""How a reason begins that is about one of our own annotations: they become events, too."""
MOST = 16
"""Notes kept of one object: beyond that a hostile one would only fill memory and terminals."""

PROTOCOLS = {protocol.name: protocol for protocol in Protocol}
_PORT_NAME = re.compile(r"[\w.-]{0,63}", re.ASCII)
_LONGEST = 64  # no address or prefix is longer, zero-padded or not


def brief(value: object) -> str:
    """The value in one short printable piece, for use in a reason."""
    try:
        text = value if isinstance(value, str) else reprlib.repr(value)
    except ValueError:  # Python refuses to show numbers of thousands of digits
        text = "a number too long to show"
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


class Notes:
    """The refusals of one object, in the order of their discovery."""

    def __init__(self, key: Key) -> None:
        self.subject = str(key)
        self._taken: list[Refused] = []
        self._dropped = 0

    def add(self, reason: str, *, wrong: bool = True) -> None:
        """Note one part that is left out."""
        if len(self._taken) < MOST:
            self._taken.append(Refused(self.subject, reason, wrong))
        else:
            self._dropped += 1

    def all(self) -> tuple[Refused, ...]:
        """Everything noted; the rest beyond `MOST` as a count."""
        if not self._dropped:
            return tuple(self._taken)
        rest = Refused(self.subject, f"and {self._dropped} more parts are malformed")
        return (*self._taken, rest)

    def address(self, field: str, text: str) -> Address | None:
        """An address to serve or to reach: any but the unspecified one."""
        if len(text) <= _LONGEST:
            try:
                address = parse(text)
            except BadAddress:
                pass
            else:
                if address not in ANY.values():
                    return address
                self.add(f"{field}: {text!r} is the unspecified address")
                return None
        self.add(f"{field}: {brief(text)} is not an IP address")
        return None

    def addresses(self, field: str, texts: Iterable[str]) -> tuple[Address, ...]:
        """The addresses of a list, each once, in order."""
        found = (self.address(f"{field}[{i}]", text) for i, text in enumerate(texts))
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def prefix(self, field: str, text: str) -> Prefix | None:
        """A prefix; white space around it is trimmed."""
        text = text.strip()
        if len(text) <= _LONGEST:
            try:
                return parse_prefix(text)
            except BadAddress:
                pass
        self.add(f"{field}: {brief(text)} is not an address range, write ADDRESS/LENGTH")
        return None

    def port(self, field: str, number: int | None) -> int | None:
        """A port from 1 to 65535."""
        if number is not None and 1 <= number <= 65535:
            return number
        shown = "missing" if number is None else brief(number)
        self.add(f"{field}: {shown}, a port is 1 to 65535")
        return None

    def protocol(self, field: str, name: str | None) -> Protocol | None:
        """A protocol; TCP where none is given."""
        protocol = PROTOCOLS.get(name or "TCP")
        if protocol is None:
            self.add(f"{field}: {brief(name)} is not TCP, UDP or SCTP")
        return protocol

    def port_name(self, field: str, name: str) -> str | None:
        """A port's name: up to 63 letters, digits, dots and dashes, or empty."""
        if _PORT_NAME.fullmatch(name):
            return name
        self.add(f"{field}: {brief(name)} is not a port name")
        return None
