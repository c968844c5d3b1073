"""Where the data path meets a client: at its socket, at its pod's device, or where outsiders enter.

Found by routes, by the filters on devices, and by who lives in which network namespace.
Not for what becomes of the client's packets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bpf import netlink, netns, tc
from bpf.layout import Asker
from bpf.module import Program, Text
from bpf.netlink import Way
from bpf.pins import Pins
from bpf.texts import FOREIGN_POD, LB, LB_IN, LOCAL_LB, POD, POD_IN
from lb.errors import BadInput
from lb.see.spaces import Space, space_of


class Whence(NamedTuple):
    """`cookie`: of a socket's network namespace, 0 if unknown; `device`, `text`: of packets."""

    asker: Asker
    device: Way | None = None
    cookie: int = 0
    text: Text | None = None
    """The programs that the device has."""

    @property
    def counts_as(self) -> Asker:
        """Who it is to services: what comes in by a device may be pods' where none is known."""
        if self.asker is Asker.SOCKET:
            return Asker.SOCKET
        return Asker.POD if self.text in (POD, LOCAL_LB) else Asker.OUTSIDE


class Places:
    """Of this network namespace, looked up once. `cgroup`: below which sockets have hooks.

    Raises OSError, NetlinkError.
    """

    def __init__(self, cgroup: Path | None, pins: Pins) -> None:
        self._cgroup = cgroup
        in_force = tc.in_force((tc.LB_IN, tc.POD_IN))
        self._uplinks = _texts(in_force, LB_IN, pins, (LB, LOCAL_LB))
        self._pods = _texts(in_force, POD_IN, pins, (POD, FOREIGN_POD))
        self._spaces: dict[str, Space] = {}

    def of(self, source: str, *, socket: bool | None) -> Whence:
        """`socket`: a connect, or a packet; None: what this node sees first of that client.

        Raises BadInput where no device can bring its packets, OSError, NetlinkError.
        """
        way = netlink.way_to(source)
        device = self._of_pod(way) if way is not None else None
        if socket is None:
            socket = way is not None and way.device not in self._uplinks
            if socket and device is not None:
                socket = self._space(source).seen
        if socket:
            is_own = way is not None and way.is_local
            return Whence(
                Asker.SOCKET, cookie=netns.cookie() if is_own else self._space(source).cookie
            )
        if way is None:
            raise BadInput(f"{source}: this node has no route there; where is it from?")
        if device is not None:
            return Whence(Asker.POD, device, text=self._pods[device.device])
        uplink = self._uplink(way)
        return Whence(Asker.OUTSIDE, uplink, text=self._uplinks.get(uplink.device, LB))

    def leaves_by(self, destination: str) -> Way | None:
        """The device where outside traffic enters by which packets for there leave; None: none.

        Raises OSError, NetlinkError.
        """
        way = netlink.way_to(destination)
        return way if way is not None and way.device in self._uplinks else None

    def _space(self, address: str) -> Space:
        if address not in self._spaces:
            self._spaces[address] = space_of(address, self._cgroup)
        return self._spaces[address]

    def _of_pod(self, way: Way) -> Way | None:
        """The pod's device behind a way; of a bridge the first port, since all do the same."""
        if way.device in self._pods:
            return way
        ports = sorted(netlink.ports_of(way.device) & self._pods.keys()) if self._pods else []
        return netlink.device(ports[0]) if ports else None

    def _uplink(self, way: Way) -> Way:
        """The device itself if outside traffic enters there, else any where it does."""
        if way.device in self._uplinks:
            return way
        if not self._uplinks:
            raise BadInput("no device of this node carries the packet programs")
        return netlink.device(next(iter(self._uplinks))) or way


def _texts(
    in_force: Mapping[str, Mapping[str, int]], program: Program, pins: Pins, texts: Iterable[Text]
) -> dict[str, Text]:
    """Which of the texts each device has that has the program; the first, where nobody can tell."""
    by_label = {text.label: text for text in texts}
    usual = next(iter(by_label.values()))
    labels = pins.labels(program)
    return {
        device: by_label.get(labels.get(programs[program.name], ""), usual)
        for device, programs in in_force.items()
        if program.name in programs
    }
