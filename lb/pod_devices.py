"""The node's ends of pods' devices, and the programs on them, for clients that no socket hook sees.

A device is covered as soon as it appears; it is looked at once, and remembered by its index.
Where outside traffic enters is not for this: `lb.devices` has it, and its programs win.

Of a bridge the ports are covered, and its name stands for them: what pods of one bridge answer each
other never passes the bridge's own device. Nor may a request pass two programs, since the second
would take it for one that its pod sent straight to the backend.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from bpf import netlink, tc
from lb.builds import Builds

log = logging.getLogger("tidegate.pods")
AUTO = "auto"
_AT_ONCE = 16
"""Devices that a step of `mend` asks for."""
_LEADING_TO_PODS = ("veth", "tun")
"""Kinds of devices behind which auto expects a pod or a virtual machine."""


def leads_to_pods(
    link: netlink.Link, bridge: str, patterns: Sequence[str], uplinks: Collection[str]
) -> bool:
    """Is it to have the programs? A pattern is `auto`, or a name with `*`, `?` and `[...]`.

    `bridge` is the name of the one that it is a port of, "" for none.
    """
    if link.name in uplinks or not link.is_ethernet or link.kind == "bridge":
        return False
    return any(
        link.kind in _LEADING_TO_PODS
        if pattern == AUTO
        else fnmatchcase(link.name, pattern) or (bridge and fnmatchcase(bridge, pattern))
        for pattern in patterns
    )


class PodDevices:
    """Attaches, and remembers what failed. For any thread. Without patterns it only takes off."""

    def __init__(self, patterns: Sequence[str], builds: Builds) -> None:
        self._patterns, self._builds = patterns, builds
        self._seen_as: dict[int, str] = {}
        self._lock = threading.Lock()
        self._started = False
        self._uplinks: Collection[str] = ()
        self._links: dict[int, netlink.Link] = {}
        self._renew: set[int] = set()
        self._serving: dict[int, str] = {}
        self._errors: dict[str, str] = {}

    def start(self, uplinks: Collection[str]) -> None:
        """From now on devices get the programs. Raises OSError, NetlinkError."""
        with self._lock:
            if not self._started:
                present = netlink.names()
                before = set(tc.carriers(tc.POD_IN))
                self._serving = {i: name for i, name in present.items() if name in before}
                self._renew = set(self._serving)
            self._started = True
        self.follow(uplinks)

    def follow(self, uplinks: Collection[str]) -> bool:
        """Look at all devices; True: something changed. Raises OSError, NetlinkError."""
        with self._lock:
            self._uplinks = uplinks
            if not self._started:
                return False
            wanted = self._wanted(uplinks)
            before = (self._serving, self._errors)
            errors: dict[str, str] = {}
            serving: dict[int, str] = {}
            for index, name in wanted.items():
                try:
                    if index not in self._serving or index in self._renew or name in self._errors:
                        tc.attach(name, self._builds.of(self._seen_as[index]))
                    serving[index] = name
                except FileNotFoundError:
                    continue  # it went meanwhile
                except (OSError, tc.NetlinkError) as error:
                    errors[name] = f"{name}: {error}"
            self._renew = set()
            for index in self._serving.keys() - wanted.keys():
                name = self._links[index].name if index in self._links else ""
                if name and name not in uplinks:
                    tc.detach(name)
            self._serving, self._errors = serving, errors
            news = (serving, errors) != before
            if news:
                self._tell(before[0])
            return news

    def _wanted(self, uplinks: Collection[str]) -> dict[int, str]:
        """By index. Asks the kernel about new devices only, or a look would take long.

        But others may become ports of a bridge, where its name matters.
        """
        names = netlink.names()
        kept: Container[int] = self._links
        if any(pattern != AUTO for pattern in self._patterns):
            kept = self._serving
        if self._builds.by_name:
            kept = ()  # those that have programs may need others
        known = {i: self._links[i] for i in names if i in kept and i in self._links}
        known |= netlink.links(names.keys() - known.keys())
        self._links = {index: link._replace(name=names[index]) for index, link in known.items()}
        seen_as = {
            index: names.get(link.master) or link.name for index, link in self._links.items()
        }
        self._renew |= {
            index for index, name in seen_as.items() if self._seen_as.get(index) != name
        }
        self._seen_as = seen_as
        return {
            index: link.name
            for index, link in self._links.items()
            if leads_to_pods(link, names.get(link.master, ""), self._patterns, uplinks)
        }

    def _tell(self, before: dict[int, str]) -> None:
        added = [name for index, name in self._serving.items() if index not in before]
        gone = [name for index, name in before.items() if index not in self._serving]
        if added or gone:
            text = ", ".join([*added, *(f"no longer {name}" for name in gone)])
            log.info("pods' devices: %s", text)
        for line in self._errors.values():
            log.warning("%s", line)

    def mend(self) -> Iterator[str]:
        """Put back what somebody took off, a few devices at a step; a line for each of them.

        Raises OSError, NetlinkError.
        """
        with self._lock:
            serving = list(self._serving.items())
        for first in range(0, len(serving), _AT_ONCE):
            part = dict(serving[first : first + _AT_ONCE])
            gone = self._without(part)
            with self._lock:
                self._renew |= gone.keys() & self._serving.keys()
            if gone:
                self.follow(self._uplinks)
            yield from [f"the programs of {part[index]}, which were detached" for index in gone]
            yield ""

    def _without(self, devices: Mapping[int, str]) -> dict[int, list[str]]:
        """The programs that those lack that lack any."""
        there = tc.attached(*devices.values())
        lacking = {
            index: [
                program
                for program, number in tc.wanted(self._builds.of(self._seen_as[index])).items()
                if there[name].get(program) != number
            ]
            for index, name in devices.items()
            if name in there and index in self._seen_as
        }
        return {index: programs for index, programs in lacking.items() if programs}

    def detached(self) -> list[str]:
        """A line for each program that somebody took off. Raises OSError, NetlinkError."""
        with self._lock:
            gone = self._without(self._serving) if self._serving else {}
            return [
                f"{program} is detached from {self._serving[index]}"
                for index, programs in gone.items()
                for program in programs
            ]

    def feature(self) -> dict[str, Any]:
        """The entry in `status`."""
        if not self._started:
            return {"state": "off", "devices": {}, "reason": "waiting for the first full state"}
        if not self._patterns:
            return {"state": "off", "devices": {}, "reason": "switched off by --pod-devices"}
        try:
            gone = self.detached()
        except (OSError, tc.NetlinkError) as error:
            gone = [str(error)]
        with self._lock:
            faults = [*self._errors.values(), *gone]
            serving = [name for name in self._serving.values() if name not in self._errors]
        answer = {
            "state": "degraded" if faults else "on",
            "devices": dict.fromkeys(serving, "tc"),
        }
        return answer | ({"reason": "; ".join(faults)} if faults else {})
