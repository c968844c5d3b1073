"""What the table `flows` remembers: connections from outside that are still alive.

Pure: from the bytes of rows to records, and to the rows of `show flows`, whose fields the
contract names. Not for reading the table, which the data path alone writes, and while this reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from bpf.layout import Flow, FlowState, FlowTimeout, Forwarding, Row, RowSize
from lb.address import Address, show_port
from lb.model import Protocol
from lb.plan import Unit

PIECE = 1024
"""Rows to read at once: the whole table is 14 MB."""
_AT = {field.name: field.offset for field in Row.FIELDS}
_TAGS = slice(_AT["forth"], _AT["flow"])
"""Where in struct row its tags lie, those of both ways."""
FLOWS = _AT["flow"]
"""Where in struct row its flows begin."""
_FREE = bytes(_TAGS.stop - _TAGS.start)
_SECOND = 10**9


def timeout(protocol: int, state: int) -> int:
    """Seconds without a packet after which a flow is over, as the data path counts them."""
    match state:
        case FlowState.ESTABLISHED:
            return FlowTimeout.TCP if protocol == Protocol.TCP else FlowTimeout.UDP
        case FlowState.CLOSING:
            return FlowTimeout.CLOSING
        case _:
            return FlowTimeout.NEW


def is_unused(raw: bytes, start: int) -> bool:
    """Was there never a flow in the row that begins at `start`? Cheap, and true of most."""
    return raw[start + _TAGS.start : start + _TAGS.stop] == _FREE


def alive(raw: bytes, now: int) -> Iterator[Flow]:
    """The flows in whole rows of the table that a packet would still find, in no order.

    `now` is ns of CLOCK_MONOTONIC. A place counts while it has a tag, whichever way it is for.
    Raises struct.error if `raw` ends in the midst of a row.
    """
    for start in range(0, len(raw), Row.SIZE):
        if is_unused(raw, start):
            continue
        row = Row.unpack(raw[start : start + Row.SIZE])
        for way in range(RowSize.WAYS):
            if row.forth[way] or row.back[way]:
                flow = Flow.unpack(row.flow[way * Flow.SIZE : (way + 1) * Flow.SIZE])
                if flow.state and now - flow.used <= timeout(flow.protocol, flow.state) * _SECOND:
                    yield flow


def rows(flows: Iterable[Flow], units: Mapping[int, Unit], now: int) -> list[dict[str, Any]]:
    """The flows as `show` has them, by client. `units`: by service id.

    A flow that says what no program writes was caught while it changed, and is left out.
    """
    found = []
    for flow in sorted(flows, key=_order):
        with suppress(ValueError):
            found.append(_row(flow, units.get(flow.service), now))
    return found


def _order(flow: Flow) -> tuple[bytes, int, int, bytes, int]:
    return flow.client, flow.client_port, flow.protocol, flow.frontend, flow.frontend_port


def _row(flow: Flow, unit: Unit | None, now: int) -> dict[str, Any]:
    return {
        "namespace": unit.service.namespace if unit else "",
        "name": unit.service.name if unit else "",
        "port_name": unit.port if unit else "",
        "protocol": Protocol(flow.protocol).name,
        "client": show_port(Address(flow.client), flow.client_port),
        "frontend": show_port(Address(flow.frontend), flow.frontend_port),
        "backend": show_port(Address(flow.backend), flow.backend_port),
        "mode": Forwarding(flow.mode).name.lower(),
        "port": flow.port or None,
        "state": FlowState(flow.state).name.lower(),
        "packets": flow.packets,
        "bytes": flow.octets,
        "idle_seconds": max(0, (now - flow.used) // _SECOND),
    }
