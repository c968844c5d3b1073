"""Which devices get the XDP program and in which mode, and what the program is told of devices.

Where XDP cannot be had, tc serves alone, and the reason stands in `status`. Not for what the
program does with a packet, and not for tc (`lb.devices`).
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bpf import xdp
from bpf.kept import Elements, Named, differences, key_of, put_back
from bpf.layout import Device, DeviceFlag
from bpf.maps import Array, Hash
from bpf.xdp import Link, Mode

log = logging.getLogger("tidegate.xdp")

CHOICES = ("auto", "native", "generic", "off")
_TRIES = {
    "auto": (Mode.NATIVE, Mode.GENERIC),
    "native": (Mode.NATIVE,),
    "generic": (Mode.GENERIC,),
    "off": (),
}


def entry(link: Link, mode: Mode | None) -> Device:
    """What the program is told of a device that has it in this mode, or has it not.

    A driver that runs the program can send back what came, but a veth, which lets it lie until
    its next packet (see `rewrite_xdp.h`); it takes redirected frames, while its other end
    listens in the way that XDP needs. A veth hands over what a process of this machine sent, with
    checksums that nobody finished; generic XDP sees what any virtual driver or GRO left so.
    """
    flags = 0
    if link.is_ethernet:
        flags |= DeviceFlag.ETHERNET
    if link.sends:
        flags |= DeviceFlag.SENDS
    if not link.is_veth:
        flags |= DeviceFlag.RETURNS
    if mode is Mode.GENERIC:
        flags |= DeviceFlag.GENERIC
    if link.is_veth or mode is Mode.GENERIC:
        flags |= DeviceFlag.VIRTUAL
    return Device(link.mac, flags)


def why_not(error: OSError, mode: Mode) -> str:
    """Why a device does not have the program in this mode, in words."""
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return "somebody else's XDP program is there"
    if error.errno == errno.EOPNOTSUPP:
        return f"its driver has no {mode.value} XDP"
    return f"{mode.value} XDP: {error.strerror or error}"


def feature(wanted: str, modes: dict[str, Mode], reasons: dict[str, str]) -> dict[str, Any]:
    """The entry in `status`. What serves by tc instead is no fault, unless XDP was asked for."""
    lines = [f"{name}: {reason}" for name, reason in reasons.items()]
    if wanted == "off":
        return {"state": "off", "devices": {}, "reason": "--xdp off: served by tc"}
    missing = [name for name in reasons if name not in modes]
    state = "on" if modes else "off"
    if missing and wanted != "auto":
        state = "degraded"
    if not modes and not lines:
        lines = ["no device to serve"]
    answer: dict[str, Any] = {
        "state": state,
        "devices": {name: mode.value for name, mode in modes.items()},
    }
    return answer | ({"reason": "; ".join(lines)} if lines else {})


class Xdp:
    """Attaches, and remembers what could not be. For any thread."""

    def __init__(self, wanted: str, programs: Path | None, links: Path, table: Array) -> None:
        """`programs`: None where `wanted` is off."""
        self._wanted, self._programs, self._links, self._table = wanted, programs, links, table
        self._lock = threading.Lock()
        self._written: dict[int, bytes] = {}
        self._modes: dict[str, Mode] = {}
        self._reasons: dict[str, str] = {}

    def follow(self, serving: Sequence[str]) -> bool:
        """See to these devices and to no others; True: something changed.

        Raises OSError, NetlinkError.
        """
        with self._lock:
            links = {link.name: link for link in xdp.links()}
            served = [links[name] for name in serving if name in links]
            wanted = served if _TRIES[self._wanted] else []
            keep = frozenset(link.number for link in wanted)
            changed = bool(xdp.detach_others(self._links, keep))
            before = (self._modes, self._reasons)
            self._modes, self._reasons = {}, {}
            # What the program is told comes first, or it would hand up all until then.
            self._tell(links.values(), xdp.attached(self._links))
            for link in wanted:
                changed |= self._attach(link)
            # Peers of a veth can do more once the program is there.
            self._tell(xdp.links() if changed else links.values(), xdp.attached(self._links))
            if (self._modes, self._reasons) != before:
                changed = True
                self._say()
            return changed

    def _attach(self, link: Link) -> bool:
        if self._programs is None:
            return False
        for mode in _TRIES[self._wanted]:
            try:
                done = xdp.attach(link.number, mode, self._programs, self._links)
            except OSError as error:
                self._reasons[link.name] = why_not(error, mode)
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    return False  # nor would it share its place with the other mode
                continue
            self._modes[link.name] = mode
            return done
        return False

    def _tell(self, links: Collection[Link], attached: dict[int, Mode]) -> None:
        """Writes what changed into the table; a device too far for it is served by tc alone."""
        wanted = {
            link.number: entry(link, attached.get(link.number)).pack()
            for link in links
            if link.number < self._table.capacity
        }
        for index, value in wanted.items():
            if self._written.get(index) != value:
                self._table.write(index, value)
        for index in self._written.keys() - wanted.keys():
            self._table.write(index, bytes(self._table.size))
        self._written = wanted

    def _say(self) -> None:
        for name, mode in self._modes.items():
            log.info("%s: %s XDP", name, mode.value)
        for name, reason in self._reasons.items():
            log.warning("%s: %s", name, reason)

    def detached(self) -> list[str]:
        """A line for each device that lost its program. Raises OSError, NetlinkError."""
        with self._lock:
            there = xdp.attached(self._links)
            names = {link.name: link.number for link in xdp.links()}
            return [
                f"lb_xdp is detached from {name}"
                for name in self._modes
                if name in names and names[name] not in there
            ]

    def mend(self) -> list[str]:
        """See to it that the table says what it was told; a line for each device where it did not.

        Raises OSError.
        """
        with self._lock:
            return [line for line in put_back(*self._kept()) if line]

    def differences(self) -> list[str]:
        """The same, and changes nothing. Raises OSError."""
        with self._lock:
            return differences(*self._kept())

    def _kept(self) -> tuple[Hash, dict[bytes, bytes], Named]:
        wanted = {key_of(number): value for number, value in self._written.items()}
        return Elements(self._table), wanted, _name

    def feature(self) -> dict[str, Any]:
        """The entry in `status`."""
        with self._lock:
            return feature(self._wanted, dict(self._modes), dict(self._reasons))


def _name(key: bytes) -> str:
    return f"what XDP knows of device {int.from_bytes(key, 'little')}"
