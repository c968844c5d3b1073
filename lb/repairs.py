"""What is looked at in the background, and how each is put back: the checks of `lb.healing`.

In the order in which one needs the other: pins hold the programs that links and filters attach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from bpf import kept, tails
from bpf.keep import Keeper
from bpf.kept import put_back
from bpf.link import GUARD, SOCKET_HOOKS, attach
from bpf.module import Text
from bpf.pins import Pins
from bpf.tc import NetlinkError
from lb import status
from lb.config import Settings
from lb.controller import Controller
from lb.devices import Devices
from lb.healing import Check
from lb.here import Cidrs, Identity
from lb.limits.manager import Bandwidth
from lb.mending import Mender, address_name, vip_name
from lb.neighbours import Neighbours
from lb.pod_devices import PodDevices
from lb.reserved import is_reserved, reserve
from lb.xdp import Xdp

_NETLINK = (OSError, NetlinkError)


class Parts(NamedTuple):
    """What an agent has put in place. `programs`: those of sockets."""

    pins: Pins
    programs: Path
    devices: Devices
    xdp: Xdp
    identity: Identity
    cidrs: Cidrs
    pod_devices: PodDevices
    neighbours: Neighbours
    bandwidth: Bandwidth
    tails: Mapping[Text, Path]
    """Builds with tail calls, and the folders of their programs."""


def checks(settings: Settings, controller: Controller, parts: Parts) -> tuple[Check, ...]:
    """All checks. What the controller writes is looked at under its lock."""
    keeper = Keeper(parts.pins, [hook.name for hook in (*SOCKET_HOOKS, GUARD)])
    mender = Mender(controller.reconciler, controller.addresses)

    def tables() -> Iterator[str]:
        if parts.identity.mend():
            yield "what the programs know of this node, which was altered"
        yield from put_back(parts.cidrs.table, parts.cidrs.written, parts.cidrs.name)
        yield from mender.mend()

    def packets() -> Iterator[str]:
        yield from parts.devices.mend()
        gone = parts.xdp.detached()
        if gone:
            parts.xdp.follow(parts.devices.for_xdp)
            yield from [line.replace("is detached", "was detached") for line in gone]
        yield from parts.pod_devices.mend()

    def calls() -> Iterator[str]:
        for text, folder in parts.tails.items():
            yield from tails.put_back(text, folder)

    def sockets() -> Iterator[str]:
        yield from hooks.mend()
        keeper.hold()

    lock, bpffs = controller.lock, settings.bpffs
    hooks = _Hooks(parts.pins.links, parts.programs, settings.cgroup)
    return (
        Check("pin", lambda: (f"pin {path}, which was removed" for path in keeper.mend()), lock),
        Check("socket_program", sockets, lock),
        Check("packet_program", packets, nullcontext(), _NETLINK),
        Check("reserved_ports", lambda: _ports(bpffs), nullcontext(), (OSError, ValueError)),
        Check("map", tables, lock),
        Check("device", lambda: iter(parts.xdp.mend()), nullcontext()),
        Check("tail_call", calls, nullcontext()),
        Check("neighbour", parts.neighbours.mend, nullcontext(), _NETLINK),
        Check("bandwidth", lambda: iter(parts.bandwidth.mend()), nullcontext(), _NETLINK),
    )


def differences(controller: Controller, parts: Parts) -> list[str]:
    """What is not as it should be, a line each, but for the socket programs; for `verify`.

    Raises OSError, NetlinkError.
    """
    with controller.lock:
        reconciler, addresses, cidrs = controller.reconciler, controller.addresses, parts.cidrs
        lines = status.differences(reconciler)
        lines += kept.differences(addresses.table, addresses.written, address_name)
        lines += kept.differences(reconciler.tables.vips, reconciler.vips.there, vip_name)
        lines += kept.differences(cidrs.table, cidrs.written, cidrs.name)
        if parts.identity.differs():
            lines.append("what the programs know of this node is altered")
    for part in (parts.devices, parts.xdp, parts.pod_devices):
        lines += part.detached()
    for kept_by in (parts.xdp, parts.bandwidth, parts.neighbours):
        lines += kept_by.differences()
    for text, folder in parts.tails.items():
        lines += [
            f"tail call {program.name} of {text.source} is missing or altered"
            for program in tails.wrong(text, folder)
        ]
    return lines


class _Hooks:
    """The socket programs on their cgroup."""

    def __init__(self, links: Path, programs: Path, cgroup: Path) -> None:
        self._links, self._programs, self._cgroup = links, programs, cgroup
        self._guarded = False

    def mend(self) -> Iterator[str]:
        # Attached once something asks for it, and from then on.
        self._guarded |= (self._links / GUARD.name).exists()
        for hook in (*([GUARD] if self._guarded else []), *SOCKET_HOOKS):
            if attach(hook, self._programs, self._links, self._cgroup):
                yield f"program {hook.name} of {self._cgroup}, which was detached"


def _ports(bpffs: Path) -> Iterator[str]:
    if not is_reserved() and not reserve(bpffs):
        yield "the reserved ports, which were given up"
