"""The tunnel of the pods' network, where there is one: VXLAN or Geneve, as flannel and Calico use.

What goes to another node's backend by it gets the tunnel's own address as its source, as
masquerading gives it. With the node's, the backend's node would drop it (rp_filter: the way back is
another one), or answer past the tunnel with the address of a pod, which clouds drop. The answers
come back by the tunnel, so it has the programs of a device where outside traffic enters.
Tunnels without a link header (IP in IP, WireGuard) the programs cannot read: not for those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from bpf import netlink
from lb.address import Address, Family, family, show

_KINDS = ("vxlan", "geneve")


class Tunnel(NamedTuple):
    """A device and its address."""

    device: str
    number: int
    """The device's index."""
    address: Address


def choose(devices: Mapping[str, int], held: Iterable[netlink.Held]) -> dict[Family, Tunnel]:
    """Of each family the first by name that has an address of it; link-local ones do not count.

    `devices`: the index of each tunnel.
    """
    found: dict[Family, Tunnel] = {}
    for one in sorted(held, key=lambda one: one.device):
        address = Address(one.address)
        if one.device in devices and not ip_address(show(address)).is_link_local:
            found.setdefault(family(address), Tunnel(one.device, devices[one.device], address))
    return found


def present(held: Iterable[netlink.Held]) -> dict[Family, Tunnel]:
    """Those of this network namespace, whose addresses are these. Raises OSError, NetlinkError."""
    devices = netlink.of_kind(*_KINDS)
    return choose(devices, held) if devices else {}
