"""Names for people, kept in a map beside the ids so that they can be shown with the agent dead.

Services are named by their service id; nodes and zones get small ids of their own, counted by
use. Nothing that traffic depends on: a name that does not fit is an id 0, "unknown".
"""

from __future__ import annotations

from bpf.layout import FrontendKey, Name, NameKey, NameKind, Scope
from lb.address import Address, Family, show_port
from lb.model import Protocol, ServiceName
from lb.plan import Unit

LONGEST = 255
"""Bytes of a name in the map, without the closing zero."""


def text_of(unit: Unit) -> str:
    """How a unit is written in the map: no part can hold a slash."""
    service, port, protocol, family = unit
    return f"{service.namespace}/{service.name}/{port}/{protocol.name}/{family.label}"


def unit_of(text: str) -> Unit:
    """The unit behind such a text. Raises ValueError, KeyError if it is none."""
    namespace, name, port, protocol, label = text.split("/")
    family = Family.IPV6 if label == Family.IPV6.label else Family.IPV4
    return Unit(ServiceName(namespace, name), port, Protocol[protocol], family)


def packed(kind: NameKind, number: int, text: str) -> tuple[bytes, bytes]:
    """The map's entry for a name; what is too long is cut."""
    raw = text.encode()[:LONGEST]
    return NameKey(kind, number).pack(), Name(raw).pack()


def unpacked(key: bytes, value: bytes) -> tuple[NameKind, int, str]:
    """The name in a map's entry."""
    where = NameKey.unpack(key)
    text = Name.unpack(value).text.partition(b"\0")[0].decode(errors="replace")
    return NameKind(where.kind), where.id, text


def show_key(key: bytes) -> str:
    """A packed frontend key for people: `10.96.0.10:80/TCP`."""
    record = FrontendKey.unpack(key)
    protocol = Protocol(record.protocol).name
    if record.scope == Scope.NODE:
        return f"node port {record.port}/{protocol}"
    return f"{show_port(Address(record.address), record.port)}/{protocol}"


class Names:
    """Node and zone names with their 16-bit ids. `changed` and `gone`: what the map lacks yet."""

    def __init__(self) -> None:
        self.changed: dict[bytes, bytes] = {}
        self.gone: set[bytes] = set()
        self._ids: dict[tuple[NameKind, str], int] = {}
        self._texts: dict[tuple[NameKind, int], str] = {}
        self._uses: dict[tuple[NameKind, int], int] = {}
        self._free: set[int] = set()
        self._next = 1

    def use(self, kind: NameKind, text: str) -> int:
        """The id of a name, one more use of it; 0 for the empty name or when all are taken."""
        if not text:
            return 0
        number = self._ids.get((kind, text)) or self._new(kind, text)
        if number:
            self._uses[kind, number] += 1
        return number

    def use_known(self, kind: NameKind, number: int) -> int:
        """One more use of a name that was read back; 0 where there is none."""
        where = (kind, number)
        if where not in self._uses:
            return 0
        self._uses[where] += 1
        return number

    def drop(self, kind: NameKind, number: int) -> None:
        """One use less; the last one frees the id."""
        if not number:
            return
        self._uses[kind, number] -= 1
        if not self._uses[kind, number]:
            self._forget(kind, number)

    def restore(self, kind: NameKind, number: int, text: str) -> None:
        """A name that was read back, not used by anything yet."""
        self._ids[kind, text] = number
        self._texts[kind, number] = text
        self._uses[kind, number] = 0
        self._free.discard(number)
        self._free.update(range(self._next, number))
        self._next = max(self._next, number + 1)

    def forget_unused(self) -> None:
        """Names that were read back and that nothing uses leave the map."""
        for kind, number in [where for where, uses in self._uses.items() if not uses]:
            self._forget(kind, number)

    def known(self) -> list[tuple[NameKind, int]]:
        """All ids that have a name."""
        return list(self._texts)

    def entry(self, kind: NameKind, number: int) -> tuple[bytes, bytes] | None:
        """What the map holds of a name; None: nothing yet, or no more."""
        text = self._texts.get((kind, number))
        if text is None:
            return None
        key, value = packed(kind, number, text)
        return None if key in self.changed else (key, value)

    def _forget(self, kind: NameKind, number: int) -> None:
        del self._uses[kind, number]
        text = self._texts.pop((kind, number))
        if self._ids.get((kind, text)) == number:
            del self._ids[kind, text]
        self._free.add(number)
        key = NameKey(kind, number).pack()
        self.changed.pop(key, None)
        self.gone.add(key)

    def _new(self, kind: NameKind, text: str) -> int:
        if self._free:
            number = self._free.pop()
        elif self._next < 1 << 16:
            number, self._next = self._next, self._next + 1
        else:
            return 0
        self._ids[kind, text] = number
        self._texts[kind, number] = text
        self._uses[kind, number] = 0
        key, value = packed(kind, number, text)
        self.gone.discard(key)
        self.changed[key] = value
        return number
