"""The devices where traffic from outside enters: which they are, and the programs on them.

Named devices that are missing are attached once they appear; without names, those with a default
route. Not for what the programs do with a packet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bpf import tc
from lb.address import Family
from lb.builds import Builds

log = logging.getLogger("tidegate.devices")
_SETTINGS = Path("/proc/sys/net")


class Choice(NamedTuple):
    """Which devices are to have the programs, which of them are missing, which have too many."""

    serve: tuple[str, ...]
    missing: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()

    def reaching(self, tunnels: Collection[str]) -> Choice:
        """With these served, too."""
        more = sorted(set(tunnels) - set(self.serve))
        leave = tuple(name for name in self.leave if name not in tunnels)
        return self._replace(serve=(*self.serve, *more), leave=leave)


def choose(
    named: Sequence[str], default: Sequence[str], present: Collection[str], carrying: Sequence[str]
) -> Choice:
    """Those named; else those with a default route, and who has the programs already.

    A default route that goes for a moment must not cut off the flows of its device.
    """
    if not named:
        found = dict.fromkeys((*default, *carrying))
        return Choice(tuple(name for name in found if name in present))
    unique = tuple(dict.fromkeys(named))
    return Choice(
        tuple(name for name in unique if name in present),
        tuple(name for name in unique if name not in present),
        tuple(name for name in carrying if name not in unique),
    )


def feature(
    serving: Sequence[str], faults: Sequence[str], *, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The entry in `status`: `faults` of devices make it degraded, `notes` of the node do not."""
    said = [*faults, *notes]
    if not serving and not faults:
        said.insert(0, "no device has a default route: name some with --devices")
    state = "degraded" if faults else "on" if serving else "off"
    answer: dict[str, Any] = {"state": state, "devices": dict.fromkeys(serving, "tc")}
    return answer | ({"reason": "; ".join(said)} if said else {})


class Devices:
    """Attaches, and remembers what failed. For any thread."""

    def __init__(self, named: Sequence[str], builds: Builds, note: str = "") -> None:
        self._named, self._builds, self._note = named, builds, note
        self._lock = threading.Lock()
        self._started = False
        self._default: Sequence[str] = ()
        self._tunnels: frozenset[str] = frozenset()
        self._choice = Choice(())
        self._carrying: Sequence[str] | None = None
        self._errors: dict[str, str] = {}
        self._put_back: list[str] = []

    def start(self) -> None:
        """From now on devices get the programs. Raises OSError, NetlinkError."""
        with self._lock:
            self._started = True
        self.follow(self._default)

    def reach(self, tunnels: Iterable[str]) -> None:
        """From the next look on these have the programs, too, whatever is named: for answers."""
        with self._lock:
            self._tunnels = frozenset(tunnels)

    def follow(self, default: Sequence[str]) -> bool:
        """Look at all devices; True: something changed. Raises OSError, NetlinkError."""
        with self._lock:
            self._default = default
            if not self._started:
                return False
            before = (self._choice, self._errors)
            if self._carrying is None:  # looked up once: it takes a request a device
                self._carrying = tc.carriers(tc.LB_IN)
            # Whoever takes our filters off a device does not thereby decide that we leave it.
            carrying = tuple(dict.fromkeys((*self._carrying, *self._choice.serve)))
            choice = choose(self._named, default, tc.devices(), carrying)
            choice = choice.reaching(self._tunnels)
            errors: dict[str, str] = {}
            changed = False
            for name in choice.serve:
                try:
                    new = tc.attach(name, self._builds.of(name))
                    changed |= new
                    if new and name in before[0].serve and name not in before[1]:
                        self._put_back.append(f"the programs of {name}, which were detached")
                except (OSError, tc.NetlinkError) as error:
                    errors[name] = f"{name}: {error}"
            for name in choice.leave:
                try:
                    changed |= tc.detach(name)
                except (OSError, tc.NetlinkError) as error:
                    errors[name] = f"{name}: could not detach: {error}"
            self._choice, self._errors = choice, errors
            self._carrying = [*choice.serve, *(one for one in choice.leave if one in errors)]
            news = (choice, errors) != before
            if news:
                self._tell()
            return changed or news

    def mend(self) -> list[str]:
        """Look again; a line for each device that got back what somebody took off.

        Since the last call: most are put back when netlink tells. Raises OSError, NetlinkError.
        """
        self.follow(self._default)
        with self._lock:
            lines, self._put_back = self._put_back, []
        return lines

    @property
    def serving(self) -> tuple[str, ...]:
        """The devices that have the programs."""
        with self._lock:
            return self._choice.serve if self._started else ()

    @property
    def for_xdp(self) -> tuple[str, ...]:
        """Those that XDP may serve: of pods it knows only that they are known by their address."""
        others = self._tunnels
        return tuple(
            name for name in self.serving if name not in others and not self._builds.is_other(name)
        )

    def _tell(self) -> None:
        log.info("devices: %s", ", ".join(self._choice.serve) or "none")
        for line in self._lines():
            log.warning("%s", line)

    def _lines(self) -> list[str]:
        return [*(f"{name} is missing" for name in self._choice.missing), *self._errors.values()]

    def detached(self) -> list[str]:
        """A line for each program that somebody took off. Raises OSError, NetlinkError."""
        with self._lock:
            there = tc.attached(*self._choice.serve)
            return [
                f"{name} is detached from {device}"
                for device in self._choice.serve
                for name, number in tc.wanted(self._builds.of(device)).items()
                if there.get(device, {}).get(name) != number
            ]

    def feature(self, families: Collection[Family]) -> dict[str, Any]:
        """The entry in `status`; `families` are those of the node's own addresses."""
        if not self._started:
            return {"state": "off", "devices": {}, "reason": "waiting for the first full state"}
        try:
            gone = self.detached()
        except (OSError, tc.NetlinkError) as error:
            gone = [str(error)]
        with self._lock:
            serving = [name for name in self._choice.serve if name not in self._errors]
            faults = [*self._lines(), *gone]
        notes = [self._note] if self._note else []
        return feature(serving, faults, notes=[*notes, *not_forwarding(serving, families)])


def not_forwarding(
    serving: Sequence[str], families: Collection[Family], settings: Path = _SETTINGS
) -> list[str]:
    """A line for each family that the node does not forward: packets cannot leave it again."""
    names: dict[str, str] = {}
    if serving and Family.IPV4 in families:
        names["ipv4/ip_forward"] = "net.ipv4.ip_forward"
    if Family.IPV6 in families:
        names |= {
            f"ipv6/conf/{one}/forwarding": f"net.ipv6.conf.{one}.forwarding" for one in serving
        }
    found = []
    for path, name in names.items():
        try:
            if (settings / path).read_text().strip() == "0":
                found.append(f"{name} is 0: backends on other nodes are not reached")
        except OSError:
            continue  # a kernel without the family, or the device just went
    return found


def take_off() -> list[str]:
    """Takes our filters off all devices; their names. Raises OSError, NetlinkError."""
    return [name for name in tc.carriers() if tc.detach(name)]
