"""What `show` and `cleanup` do: they work on the pins, with or without an agent."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from bpf.netlink import NetlinkError
from bpf.pins import Pins, is_bpffs, mount, unmount
from lb import show
from lb.client import ask
from lb.devices import take_off
from lb.errors import AgentUnreachable, KernelRefused
from lb.ground import alone_on_devices, exclusive
from lb.limits import places
from lb.limits import show as limits
from lb.neighbours import let_all_go
from lb.reserved import PORTS, SETTING, is_reserved, release, reserve
from lb.tables import in_kernel

log = logging.getLogger("tidegate")


def rows(what: str, bpffs: Path, api_socket: Path) -> list[dict[str, Any]]:  # noqa: PLR0911
    """The rows of `show WHAT`. Raises KernelRefused where no maps are."""
    pins = Pins(bpffs)
    try:
        tables = in_kernel(pins)
        match what:
            case "services":
                failing, flows = _failing(bpffs, api_socket), pins.open_array("flows")
                return show.services(tables, pins.open_hash("addresses"), failing, flows)
            case "backends":
                return show.backends(tables, pins.open_array("flows"))
            case "affinity":
                return show.affinity(tables, pins.open_hash("affinity"))
            case "flows":
                rows = show.flows(pins.open_array("flows"), tables.names)
                return rows + show.direct_flows(
                    pins.open_array("dsr_flows"), tables, pins.open_hash("addresses")
                )
            case "limits":
                return limits.limits(limits.tables(pins))
            case "maps":
                return show.maps(pins, tables)
            case _:
                return show.drops(pins)
    except OSError as error:
        raise KernelRefused(
            f"--bpffs {bpffs}: {error.strerror}; was an agent started with it?"
        ) from error


def _failing(bpffs: Path, api_socket: Path) -> list[dict[str, Any]]:
    """What the agent of these very pins cannot apply; nothing without one."""
    try:
        status = ask(api_socket, "/status")
    except AgentUnreachable:
        return []
    found: list[dict[str, Any]] = status["failing"] if status["bpffs"] == str(bpffs) else []
    return found


def clean(bpffs: Path) -> list[str]:
    """Remove all pins, and with them what is attached; their names. Raises BadInput, OSError.

    What devices carry goes also where somebody has removed the pins: filters live without them.
    Ports stay reserved then, for what others had reserved of them was remembered there.
    """
    is_there = is_bpffs(bpffs)  # else no agent pins there, and whatever lies there is not ours
    lock = None
    if is_there:
        lock = exclusive(bpffs, "an agent runs on it: stop it first, it would put everything back")
    with alone_on_devices(
        "an agent serves this network namespace, with another --bpffs: name that one, and stop it "
        "first"
    ):
        found = _off_devices(bpffs)
        if lock is not None:
            release(bpffs)
            files = bpffs.rglob("*")
            found += [str(path) for path in files if path.is_file() and path.suffix != ".debug"]
            Pins(bpffs).remove()
            os.close(lock)
            unmount(bpffs)
            if not os.path.ismount(bpffs):
                bpffs.rmdir()
        elif found and is_reserved():
            log.warning("ports %d-%d stay reserved (%s)", PORTS[0], PORTS[-1], SETTING)
    return found


def _off_devices(programs: Path) -> list[str]:
    """Takes off what devices of this network namespace have of ours; what there was.

    Raises KernelRefused, OSError.
    """
    from lb.takeover import give_back  # noqa: PLC0415 - loads much of netlink

    try:
        limited = places.carriers()
        faults = places.put(places.Places(), programs)
        off = take_off()
        neighbours = let_all_go()
    except NetlinkError as error:
        raise KernelRefused(f"filters of devices, or neighbours: {error}") from error
    if faults:
        raise KernelRefused("; ".join(faults.values()))
    found = [f"limits of {device}" for device in limited]
    found += [*(f"filters of {device}" for device in off), *give_back()]
    return found + (["neighbours kept resolved"] if neighbours else [])


def prepare(bpffs: Path) -> None:
    """Once per boot, what needs more than the agent itself. Raises KernelRefused."""
    try:
        mount(bpffs)
    except OSError as error:
        raise KernelRefused(f"--bpffs {bpffs}: {error.strerror or error}") from error
    wrong = reserve(bpffs)
    if wrong:
        raise KernelRefused(wrong)
