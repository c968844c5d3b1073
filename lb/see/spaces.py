"""Network namespaces of this node: which has an address, and which address one has.

Found by the processes of the served cgroup, and by the names that container runtimes give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bpf import netlink, netns
from lb.address import Address, show

_NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
"""Where container runtimes and `ip netns` keep namespaces by name."""


def _cookies(cgroup: Path | None) -> Iterator[tuple[int, list[str]]]:
    """Cookie and addresses, but for those of loopback and link-local ones, of each namespace."""
    paths = [one.path for one in netns.of_cgroup(cgroup).values()] if cgroup is not None else []
    # Others may have the same addresses in networks of their own.
    paths += netlink.wired(one for folder in _NAMED for one in folder.glob("*"))
    for path in paths:
        try:
            with netns.entered(path):
                held = netlink.addresses()
                shown = [show(Address(one.address)) for one in held if one.device != "lo"]
                yield netns.cookie(), [text for text in shown if not text.startswith("fe80:")]
        except OSError:
            continue  # it just went


def address_in(cookie: int, cgroup: Path | None) -> str:
    """An address of the namespace with this cookie; "": unknown."""
    for number, addresses in _cookies(cgroup):
        if number == cookie and addresses:
            return addresses[0]
    return ""


def cookie_of(address: str, cgroup: Path | None) -> int:
    """The cookie of the namespace that has the address; 0: unknown."""
    for number, addresses in _cookies(cgroup):
        if address in addresses:
            return number
    return 0
