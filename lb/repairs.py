"""What is looked at in the background, and how each is put back: the checks of `lb.healing`.

In the order in which one needs the other: pins hold the programs that links and filters attach.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from bpf.keep import Keeper
from bpf.link import GUARD, SOCKET_HOOKS, attach
from bpf.pins import Pins
from bpf.tc import NetlinkError
from lb.config import Settings
from lb.controller import Controller
from lb.devices import Devices
from lb.healing import Check
from lb.here import Identity
from lb.mending import Mender
from lb.reserved import is_reserved, reserve
from lb.xdp import Xdp


class Parts(NamedTuple):
    """What an agent has put in place. `programs`: those of sockets."""

    pins: Pins
    programs: Path
    devices: Devices
    xdp: Xdp
    identity: Identity


def checks(settings: Settings, controller: Controller, parts: Parts) -> tuple[Check, ...]:
    """All checks. What the controller writes is looked at under its lock."""
    keeper = Keeper(parts.pins, [hook.name for hook in (*SOCKET_HOOKS, GUARD)])
    mender = Mender(controller.reconciler, controller.addresses)

    def tables() -> Iterator[str]:
        if parts.identity.mend():
            yield "what the programs know of this node, which was altered"
        yield from mender.mend()

    def packets() -> Iterator[str]:
        yield from parts.devices.mend()
        gone = parts.xdp.detached()
        if gone:
            parts.xdp.follow(parts.devices.serving)
            yield from [line.replace("is detached", "was detached") for line in gone]

    def sockets() -> Iterator[str]:
        yield from hooks.mend()
        keeper.hold()

    lock, bpffs = controller.lock, settings.bpffs
    hooks = _Hooks(parts.pins.links, parts.programs, settings.cgroup)
    return (
        Check("pin", lambda: (f"pin {path}, which was removed" for path in keeper.mend()), lock),
        Check("socket_program", sockets, lock),
        Check("packet_program", packets, nullcontext(), (OSError, NetlinkError)),
        Check("reserved_ports", lambda: _ports(bpffs), nullcontext(), (OSError, ValueError)),
        Check("map", tables, lock),
    )


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
