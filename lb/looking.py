"""What `show` and `cleanup` do: they work on the pins, with or without an agent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bpf.netlink import NetlinkError
from bpf.pins import Pins, is_bpffs, mount, unmount
from lb import show
from lb.client import ask
from lb.devices import take_off
from lb.errors import AgentUnreachable, KernelRefused
from lb.ground import exclusive
from lb.limits import places
from lb.limits import show as limits
from lb.neighbours import let_all_go
from lb.reserved import release, reserve
from lb.tables import in_kernel


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
    """Remove all pins, and with them what is attached; their names. Raises BadInput, OSError."""
    if not is_bpffs(bpffs):
        return []  # no agent pins there, and whatever lies there is not ours
    from lb.takeover import give_back  # noqa: PLC0415 - loads much of netlink

    lock = exclusive(bpffs, "an agent runs on it: stop it first, it would put everything back")
    try:
        faults = places.put(places.Places(), bpffs)
        off = take_off()
        neighbours = let_all_go()
    except NetlinkError as error:
        raise KernelRefused(f"filters of devices, or neighbours: {error}") from error
    if faults:
        raise KernelRefused("; ".join(faults.values()))
    release(bpffs)
    found = [*(f"filters of {device}" for device in off), *give_back()]
    found += ["neighbours kept resolved"] if neighbours else []
    found += [str(path) for path in bpffs.rglob("*") if path.is_file() and path.suffix != ".debug"]
    Pins(bpffs).remove()
    os.close(lock)
    unmount(bpffs)
    if not os.path.ismount(bpffs):
        bpffs.rmdir()
    return found


def prepare(bpffs: Path) -> None:
    """Once per boot, what needs more than the agent itself. Raises KernelRefused."""
    try:
        mount(bpffs)
    except OSError as error:
        raise KernelRefused(f"--bpffs {bpffs}: {error.strerror or error}") from error
    wrong = reserve(bpffs)
    if wrong:
        raise KernelRefused(wrong)
