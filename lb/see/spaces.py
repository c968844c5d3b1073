"""Network namespaces of this node: which has an address, and which address one has.

Found by the processes of the served cgroup, and by the names that container runtimes give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bpf import netlink, netns
from lb.address import Address, show
from lb.config import cgroup2_root

_NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
"""Where container runtimes and `ip netns` keep namespaces by name."""


def _paths(cgroup: Path | None) -> list[Path]:
    return [one.path for one in netns.of_cgroup(cgroup).values()] if cgroup is not None else []


def _cookies(paths: Iterable[Path]) -> Iterator[tuple[int, list[str]]]:
    """Cookie and addresses, but for those of loopback and link-local ones, of each namespace."""
    for path in paths:
        try:
            with netns.entered(path):
                held = netlink.addresses()
                shown = [show(Address(one.address)) for one in held if one.device != "lo"]
                yield netns.cookie(), [text for text in shown if not text.startswith("fe80:")]
        except OSError:
            continue  # it just went


def _named() -> list[Path]:
    """Others may have the same addresses in networks of their own: those that we lead to."""
    return netlink.wired(one for folder in _NAMED for one in folder.glob("*"))


def address_in(cookie: int, cgroup: Path | None) -> str:
    """An address of the namespace with this cookie; "": unknown."""
    for number, addresses in _cookies([*_paths(cgroup), *_named()]):
        if number == cookie and addresses:
            return addresses[0]
    return ""


class Space(NamedTuple):
    """A network namespace: its cookie, 0 if unknown. `seen`: are its sockets within the cgroup?"""

    cookie: int
    seen: bool


def space_of(address: str, cgroup: Path | None) -> Space:
    """The namespace that has the address.

    Its sockets are seen if one of its processes is below `cgroup`, or none is anywhere. An address
    that no namespace has is a guest's, of a virtual machine or a sandbox: nobody sees its sockets.
    """
    for cookie, addresses in _cookies(_paths(cgroup)):
        if address in addresses:
            return Space(cookie, seen=True)
    root = cgroup2_root(Path("/proc/self/mounts").read_text())
    inhabited = netns.of_cgroup(root)
    near = netlink.wired(one.path for one in inhabited.values())
    for path in (*near, *_named()):
        for cookie, addresses in _cookies([path]):
            if address in addresses:
                return Space(cookie, seen=path.stat().st_ino not in inhabited)
    return Space(0, seen=False)
