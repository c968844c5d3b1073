"""Looks into single entries of the tables: the service at an address, the backends of a view."""

from __future__ import annotations

from array import array

from bpf.layout import AddressFlag, Frontend, FrontendKey, Line, LineOfSlots, NodeAddress, Scope
from bpf.maps import Hash
from lb.address import ANY, family
from lb.see.frame import Ends
from lb.tables import Tables


def frontend_at(tables: Tables, addresses: Hash, ends: Ends) -> Frontend | None:
    """What the destination is to services, node ports included; None: nothing."""
    key = FrontendKey(ends.destination, ends.destination_port, ends.protocol, Scope.ADDRESS)
    raw = tables.frontends.get(key.pack())
    if raw is None:
        own = addresses.get(bytes(ends.destination))
        if own is None or not NodeAddress.unpack(own).flags & AddressFlag.NODE_PORT:
            return None
        anywhere = ANY[family(ends.destination)]
        key = FrontendKey(anywhere, ends.destination_port, ends.protocol, Scope.NODE)
        raw = tables.frontends.get(key.pack())
    return Frontend.unpack(raw) if raw is not None else None


def listed(tables: Tables, view: int) -> list[int]:
    """The backends that a view's word lists."""
    count, line = view & 0xFFFFFFFF, view >> 32
    if not count:
        return []
    raw = tables.slots.read(line, -(-count // Line.SLOTS))
    return list(array("I", raw[: 4 * count])) if LineOfSlots.SIZE else []
