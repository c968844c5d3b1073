"""Attaches the XDP program to devices by pinned links, and asks what devices can do.

A pinned link outlives the agent and takes a new program in one step; a program of somebody else
is left alone, since a device has room for one. Everything happens in this thread's network
namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from bpf import libbpf
from bpf.link import pin_anew
from bpf.texts import LB_XDP

_ETHERNET = 1  # ARPHRD_ETHER
_NDO_XMIT = 4  # NETDEV_XDP_ACT_NDO_XMIT; linux/netdev.h
_DEV_GET = 1  # NETDEV_CMD_DEV_GET


class Mode(Enum):
    """Where the program runs: XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE; linux/if_link.h."""

    NATIVE = "native"
    GENERIC = "generic"

    @property
    def flag(self) -> int:
        """As the kernel has it."""
        return 4 if self is Mode.NATIVE else 2


class Link(NamedTuple):
    """A device as XDP sees it."""

    number: int
    """The kernel's index of it."""
    name: str
    mac: bytes
    """6 bytes; zeros: it has none."""
    is_ethernet: bool
    sends: bool | None
    """Can frames of other devices be sent through it? None: the kernel does not say (< 6.3)."""
    is_veth: bool


def links() -> list[Link]:
    """All devices. Raises OSError, NetlinkError."""
    sends = _senders()
    with IPRoute() as route:
        return [
            Link(
                number=one["index"],
                name=one.get("ifname") or "",
                mac=_mac(one.get("address")),
                is_ethernet=one["ifi_type"] == _ETHERNET,
                sends=None if sends is None else one["index"] in sends,
                is_veth=one.get(("linkinfo", "kind")) == "veth",
            )
            for one in route.get_links()
        ]


def _mac(text: str | None) -> bytes:
    octets = bytes.fromhex((text or "").replace(":", ""))
    return octets if len(octets) == 6 else bytes(6)


def attach(index: int, mode: Mode, programs: Path, folder: Path) -> bool:
    """Sees to it that the pinned program is in force on the device; False: it already was.

    Another mode than before means a moment without the program. Raises OSError: EBUSY where
    somebody else's program is, EOPNOTSUPP where the driver cannot.
    """
    new = libbpf.open_pin(str(programs / LB_XDP.name))
    try:
        for other in Mode:
            if other is not mode:
                _unpin(folder, index, other)
        path = _path(folder, index, mode)
        link = _open_if_alive(path, index)
        if link is None:
            link = libbpf.link_create(new, index, LB_XDP.attach_type, flags=mode.flag)
            pin_anew(link, path)
            return True
        try:
            if libbpf.xdp_link_info(link).program == libbpf.program_id(new):
                return False
            libbpf.link_update(link, new)
        finally:
            os.close(link)
        return True
    finally:
        os.close(new)


def attached(folder: Path) -> dict[int, Mode]:
    """Our live links, by the index of their device. Raises OSError."""
    found = {}
    for path, index, mode in _pinned(folder):
        link = _open_if_alive(path, index)
        if link is not None:
            os.close(link)
            found[index] = mode
    return found


def detach_others(folder: Path, keep: frozenset[int]) -> list[int]:
    """Takes the program off all devices but these; also what is left of devices that went."""
    gone = []
    for path, index, _ in list(_pinned(folder)):
        link = _open_if_alive(path, index)
        if link is not None:
            os.close(link)
        if link is None or index not in keep:
            path.unlink(missing_ok=True)
            gone.append(index)
    return gone


def _path(folder: Path, index: int, mode: Mode) -> Path:
    return folder / f"xdp-{mode.value}-{index}"


def _pinned(folder: Path) -> Iterator[tuple[Path, int, Mode]]:
    for path in folder.glob("xdp-*"):
        _, mode, index = path.name.split("-")
        yield path, int(index), Mode(mode)


def _unpin(folder: Path, index: int, mode: Mode) -> None:
    _path(folder, index, mode).unlink(missing_ok=True)


def _open_if_alive(path: Path, index: int) -> int | None:
    """The pinned link; None: there is none, or its device is gone."""
    try:
        link = libbpf.open_pin(str(path))
    except FileNotFoundError:
        return None
    if libbpf.xdp_link_info(link).device == index:
        return link
    os.close(link)
    return None


class _Device(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def _senders() -> set[int] | None:
    """The devices that send frames for XDP; None: the kernel does not tell (before Linux 6.3)."""
    with GenericNetlinkSocket() as sock:
        try:
            sock.bind("netdev", _Device)
        except NetlinkError:
            return None
        message = _Device()
        message["cmd"], message["version"] = _DEV_GET, 1
        found = sock.nlm_request(message, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
        return {
            one.get_attr("NETDEV_A_DEV_IFINDEX")
            for one in found
            if (one.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0) & _NDO_XMIT
        }
