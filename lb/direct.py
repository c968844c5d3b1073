"""Connections of direct server return, as the table `dsr_flows` remembers them, for `show flows`.

Pure. Only the client's half passes the balancer, so nothing is counted, and the frontend is
remembered by a tag: it is found again among those of the backend's service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from typing import Any, NamedTuple

from bpf.layout import DsrFlow, FlowTimeout, Forwarding
from lb.address import Address, show_port
from lb.model import Protocol
from lb.plan import Unit

_TICK = 1 << 30
"""ns of CLOCK_MONOTONIC in a unit of `used`."""
_TAG = 18 // 2
"""Where in struct dsr_flow the tag lies, in units of its own."""
_MASK = (1 << 64) - 1


_USED = 28 // 4
"""Where in it the time of the last packet lies, likewise."""


class Place(NamedTuple):
    """An address and a port."""

    address: Address
    port: int


class Target(NamedTuple):
    """A backend that can be remembered: which it is, and where its service is asked for."""

    place: Place
    generation: int
    unit: Unit
    frontends: tuple[Place, ...]


def _mix(value: int, more: int) -> int:
    value = (value ^ more) * 0x9E3779B97F4A7C15 & _MASK
    return value ^ value >> 32


def _mix_address(value: int, address: bytes) -> int:
    """Words of an address are in network byte order, and are read as the machine has them."""
    words = [int.from_bytes(address[at : at + 4], "little") for at in range(0, 16, 4)]
    return _mix(_mix(value, words[0] << 32 | words[1]), words[2] << 32 | words[3])


def tag(client: Place, frontend: Place, protocol: int, backend: int) -> int:
    """As bpf/dsr.h has it, on a little-endian machine."""
    ports = [int.from_bytes(one.port.to_bytes(2), "little") for one in (client, frontend)]
    value = _mix(protocol, ports[0] << 16 | ports[1])
    value = _mix_address(_mix_address(value, client.address), frontend.address)
    return ((value >> 48 ^ backend ^ backend >> 16) & 0xFFFF) | 1


def alive(raw: bytes, targets: Mapping[int, Target]) -> Iterator[tuple[DsrFlow, Target]]:
    """The flows in whole rows of the table that a packet would still find; `targets` by id."""
    tags = memoryview(raw).cast("H")[_TAG :: DsrFlow.SIZE // 2].tolist()
    for number, known in enumerate(tags):
        if not known:  # most are
            continue
        flow = DsrFlow.unpack(raw[number * DsrFlow.SIZE : (number + 1) * DsrFlow.SIZE])
        target = targets.get(flow.backend)
        if target is not None and target.generation == flow.generation:
            yield flow, target


def count(raw: bytes, now: int) -> int:
    """How many flows are in whole rows of the table that did not end; `now` as for `rows`.

    One may have been silent for as long as TCP may: of which protocol it is does not show.
    """
    if raw == bytes(len(raw)):  # most of the table
        return 0
    words = memoryview(raw)
    tags = words.cast("H")[_TAG :: DsrFlow.SIZE // 2].tolist()
    times = words.cast("I")[_USED :: DsrFlow.SIZE // 4].tolist()
    oldest = max(1, (now - FlowTimeout.TCP * 10**9) // _TICK)
    return sum(map(oldest.__le__, compress(times, tags)))


def rows(found: Iterable[tuple[DsrFlow, Target]], now: int) -> list[dict[str, Any]]:
    """As `lb.flows.rows` has them, `now` in ns of CLOCK_MONOTONIC; what nobody counts is null.

    Memory is not cleared when a connection has been silent for long, or ends: such are left out.
    """
    made = [_row(flow, target, now) for flow, target in found]
    return sorted((row for row in made if row), key=lambda row: (row["client"], row["frontend"]))


def _row(flow: DsrFlow, target: Target, now: int) -> dict[str, Any] | None:
    unit, client = target.unit, Place(Address(flow.client), flow.port)
    idle = max(0, now // _TICK - flow.used) * _TICK // 10**9
    limit = FlowTimeout.TCP if unit.protocol is Protocol.TCP else FlowTimeout.UDP
    asked = [
        one for one in target.frontends if tag(client, one, unit.protocol, flow.backend) == flow.tag
    ]
    if not flow.used or idle > limit or not asked:
        return None
    return {
        "namespace": unit.service.namespace,
        "name": unit.service.name,
        "port_name": unit.port,
        "protocol": unit.protocol.name,
        "client": show_port(*client),
        "frontend": show_port(*asked[0]),
        "backend": show_port(*target.place),
        "mode": Forwarding.DSR.name.lower(),
        "port": None,
        "state": "established",
        "packets": None,
        "bytes": None,
        "idle_seconds": idle,
    }
