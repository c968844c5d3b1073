"""Attaches the packet programs to devices: direct-action filters of `clsact` (tc-bpf(8)).

A filter holds its program and outlives the agent; a new program takes its place in one request,
and no packet meets neither or both. Others' filters and queues stay as they are.
Everything happens in this thread's network namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bpf import libbpf, texts
from bpf.module import Program
from bpf.netlink import names

_EGRESS, _INGRESS = 0xFFFFFFF3, 0xFFFFFFF2  # TC_H_CLSACT with TC_H_MIN_*; linux/pkt_sched.h
_CLSACT_HANDLE = 0xFFFF0000
_BPF_ID = 11  # TCA_BPF_ID; linux/pkt_cls.h

PRIORITY = 100
"""Before what the kernel numbers by itself (from 49152 down)."""
_HANDLE = 1
_EVERY_PROTOCOL = 0x0300  # ETH_P_ALL in network byte order
_PREFIX = "tidegate/"
_OWN_QUEUE = "+clsact"
"""End of a filter's name: we made the qdisc, too."""


class Hook(NamedTuple):
    """A program, the side of a device where it belongs, and its turn there."""

    program: Program
    parent: int
    priority: int = PRIORITY

    @property
    def info(self) -> int:
        """The turn as a request has it (tcmsg.tcm_info)."""
        return self.priority << 16 | _EVERY_PROTOCOL


LB_OUT = Hook(texts.LB_OUT, _EGRESS)
LB_IN = Hook(texts.LB_IN, _INGRESS)
POD_IN = Hook(texts.POD_IN, _INGRESS)

DEVICE_HOOKS = (LB_OUT, LB_IN)
"""Of a device where outside traffic enters. In the order of attaching: answers can be translated
before requests are."""

POD_HOOKS = (LB_OUT, POD_IN)
"""Of the node's end of a pod's device. One set takes the other's place, in one request a side."""

BALANCING_HOOKS = (LB_OUT, LB_IN, POD_IN)
"""What any device can have of the two."""

NAMING_HOOK = Hook(texts.EDT_NAME, _INGRESS, PRIORITY // 2)
POD_HOOK = Hook(texts.EDT_POD, _EGRESS, PRIORITY * 2)
LEAVING_HOOK = Hook(texts.EDT_OUT, _EGRESS, PRIORITY * 2)
"""Pod bandwidth: a pod is named before anything rewrites its packets, and paced after it."""
BANDWIDTH_HOOKS = (LEAVING_HOOK, POD_HOOK, NAMING_HOOK)

Pins = dict[Hook, Path]
"""Programs, and where each is pinned."""


def pins(folder: Path, *hooks: Hook) -> Pins:
    """These programs of a build."""
    return {hook: folder / hook.program.name for hook in hooks}


class _Filter(NamedTuple):
    parent: int
    info: int
    handle: int
    name: str
    program: int

    @property
    def is_ours(self) -> bool:
        return self.handle == _HANDLE and self.name.startswith(_PREFIX)

    @property
    def holds(self) -> str:
        """The name of our program."""
        return self.name.removeprefix(_PREFIX).removesuffix(_OWN_QUEUE)

    def is_one_of(self, hooks: Collection[Hook]) -> bool:
        """Ours, and one of those programs in its place."""
        place = (self.parent, self.info, self.holds)
        return self.is_ours and any(
            place == (hook.parent, hook.info, hook.program.name) for hook in hooks
        )


def devices() -> list[str]:
    """The names of all devices. Raises OSError."""
    return list(names().values())


def indexes() -> dict[str, int]:
    """The index of each device, by name. Raises OSError."""
    return {name: index for index, name in names().items()}


def attach(device: str, programs: Pins) -> bool:
    """Sees to it that all these programs are in force; False: they already were.

    Raises OSError (also where somebody else's filter has our place), NetlinkError.
    """
    with IPRoute() as route:
        index = _index(device)
        there = list(_all_filters(route, index))
        made = not any(one.is_ours for one in there) and _ensure_clsact(route, index)
        made |= any(one.is_ours and one.name.endswith(_OWN_QUEUE) for one in there)
        changed = False
        for hook, pin in programs.items():
            here = [one for one in there if one.parent == hook.parent]
            changed |= _attach_one(route, index, hook, pin, here, own_queue=made)
    return changed


def _attach_one(  # noqa: PLR0913
    route: IPRoute, index: int, hook: Hook, pin: Path, here: list[_Filter], *, own_queue: bool
) -> bool:
    if any(one.info >> 16 == hook.priority and not one.is_ours for one in here):
        raise FileExistsError(17, f"somebody else's filter has preference {hook.priority}")
    program = libbpf.open_pin(str(pin))
    try:
        number = libbpf.program_id(program)
        if any(one.is_ours and (one.info, one.program) == (hook.info, number) for one in here):
            return False
        route.tc(
            "replace-filter", "bpf", index, parent=hook.parent, info=hook.info, handle=_HANDLE,
            fd=program, name=_PREFIX + hook.program.name + _OWN_QUEUE * own_queue,
            direct_action=True,
        )  # fmt: skip
    finally:
        os.close(program)
    return True


def attached(*devices: str, hooks: Collection[Hook] = BALANCING_HOOKS) -> dict[str, dict[str, int]]:
    """These filters by device: the kernel's id of the program in force, by the program's name.

    Without the devices that are gone. Raises OSError, NetlinkError.
    """
    with IPRoute() as route:
        present = indexes()
        return {
            device: {
                one.holds: one.program
                for one in _all_filters(route, present[device])
                if one.is_one_of(hooks)
            }
            for device in devices
            if device in present
        }


def in_force(hooks: Collection[Hook]) -> dict[str, dict[str, int]]:
    """What `attached` says, of every device that has any of these. Raises OSError, NetlinkError."""
    return attached(*carriers(*hooks), hooks=hooks)


def wanted(programs: Pins) -> dict[str, int]:
    """The kernel's ids of the pinned programs, as `attached` has them. Raises OSError."""
    found = {}
    for hook, pin in programs.items():
        pinned = libbpf.open_pin(str(pin))
        found[hook.program.name] = libbpf.program_id(pinned)
        os.close(pinned)
    return found


def carriers(*hooks: Hook) -> list[str]:
    """The devices with a filter for one of these programs, or for any that balances.

    Raises OSError, NetlinkError.
    """
    with IPRoute() as route:
        present = names()
        return [
            present[index]
            for index in dict.fromkeys(_clsacts(route))
            if index in present
            and any(one.is_one_of(hooks or BALANCING_HOOKS) for one in _all_filters(route, index))
        ]


def detach(device: str, hooks: Collection[Hook] = BALANCING_HOOKS) -> bool:
    """Takes these filters off; the qdisc, too, if we made it and it is empty. False: none there.

    Requests first, then answers: no flow begins that cannot be answered.
    Raises OSError, NetlinkError.
    """
    with IPRoute() as route:
        index = _index(device)
        ours = [one for one in _all_filters(route, index) if one.is_one_of(hooks)]
        for one in sorted(ours, key=lambda one: one.parent):
            route.tc(
                "del-filter", "bpf", index, parent=one.parent, info=one.info, handle=one.handle
            )
        made = any(one.name.endswith(_OWN_QUEUE) for one in ours)
        if made and not any(_all_filters(route, index)):
            route.tc("del", "clsact", index)
    return bool(ours)


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise FileNotFoundError(2, f"no device {device}") from error


def _clsacts(route: IPRoute) -> list[int]:
    """The devices, by index, that have the qdisc."""
    return [one["index"] for one in route.get_qdiscs() if one.get("kind") == "clsact"]


def _ensure_clsact(route: IPRoute, index: int) -> bool:
    """True: it was not there. The old `ingress` qdisc in its place is refused by the kernel."""
    try:
        route.tc("add", "clsact", index)
    except NetlinkError:
        if index in _clsacts(route):
            return False
        raise
    return True


def _all_filters(route: IPRoute, index: int) -> Iterator[_Filter]:
    for parent in (_EGRESS, _INGRESS):
        yield from _filters(route, index, parent)


def _filters(route: IPRoute, index: int, parent: int) -> list[_Filter]:
    """Of other kinds, too. Each priority has a head without a handle, which is none."""
    return [
        _Filter(parent, one["info"], one["handle"], *_name_and_program(one.get_attr("TCA_OPTIONS")))
        for one in route.get_filters(index=index, parent=parent)
        if one["event"] == "RTM_NEWTFILTER" and one.get_attr("TCA_OPTIONS") is not None
    ]


def _name_and_program(options: Any) -> tuple[str, int]:
    """Name and id, "" and 0 where it is no BPF filter. pyroute2 does not know TCA_BPF_ID."""
    name, program = "", 0
    for attribute in getattr(options, "get", lambda _: None)("attrs") or ():
        kind, value = attribute[0], attribute[1]
        if kind == "TCA_BPF_NAME":
            name = value
        elif kind == "UNKNOWN" and value["header"]["type"] == _BPF_ID:
            start = value.offset + 4
            program = int.from_bytes(value.data[start : start + 4], "little")
    return name, program


__all__ = [
    "BALANCING_HOOKS", "BANDWIDTH_HOOKS", "DEVICE_HOOKS", "LB_IN", "LB_OUT", "LEAVING_HOOK",
    "NAMING_HOOK", "POD_HOOK", "POD_HOOKS", "POD_IN", "Hook", "NetlinkError", "Pins", "attach",
    "attached", "carriers", "detach", "devices", "in_force", "indexes", "pins", "wanted",
]  # fmt: skip
