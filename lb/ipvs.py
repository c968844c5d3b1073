"""Comes after kube-proxy's mode ipvs: its virtual servers go, and connections through them go on.

They cannot stay for the sake of those connections: IPVS remembers each that is over for two
minutes, and a client that comes to a pod from the same port in that time, as sockets do once we
translate their connects, has its answers taken for the old one's and hangs. So connection
tracking takes over what is open (`bpf.conntrack`), and the servers go at once. The device that
holds their addresses stays while a connection comes from one of these: the kernel has processes of
the node ask with the service's own address.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bpf import conntrack, netfilter

log = logging.getLogger("tidegate.takeover")

DEVICE = "kube-ipvs0"
"""Holds the addresses of services in kube-proxy's mode ipvs."""
IDLE_SECONDS, LOOK_SECONDS = 300.0, 2.0
"""The longest wait for connections that cannot be helped, and the pause between two looks."""
TRIES = 5
"""Of packets that come just as their connection is taken."""
_TRACKED = Path("/proc/sys/net/ipv4/vs/conntrack")
_ERRORS = (OSError, netfilter.NetlinkError)


def is_here() -> bool:
    """Was it in use, and is anything of it left?"""
    try:
        socket.if_nametoindex(DEVICE)
    except OSError:
        return False
    return True


def take_connections(stop: threading.Event) -> bool:
    """Until its virtual servers may go; False: told to stop before that."""
    why = "go on through IPVS, whose servers stay as long"
    return _waited(_still_through, why, stop)


def wait_for_device(stop: threading.Event) -> bool:
    """Until its device may go; False: told to stop before that."""
    why = f"of this node's own come from addresses of {DEVICE}, which stays as long"
    return _waited(_from_device, why, stop)


def _waited(count: Callable[[], int], why: str, stop: threading.Event) -> bool:
    deadline, is_told = time.monotonic() + IDLE_SECONDS, False
    while is_here() and time.monotonic() < deadline:
        try:
            found = count()
        except _ERRORS as error:
            log.warning("IPVS: %s", error)
            break
        if not found:
            break
        if not is_told:
            log.info("%d connections %s", found, why)
            is_told = True
        if stop.wait(LOOK_SECONDS):
            return False
    return True


def _still_through() -> int:
    """Connections that need its servers, after all others were taken over."""
    if not _is_tracked():
        return netfilter.active_connections()
    taken = left = 0
    servers = netfilter.virtual_servers()
    for _ in range(TRIES if servers else 0):
        more, left = conntrack.adopt(servers)
        taken += more
        if not left:
            break
    if taken:
        log.info("%d connections through IPVS go on by connection tracking", taken)
    return left


def _from_device() -> int:
    return conntrack.open_from(netfilter.addresses_of(DEVICE))


def _is_tracked() -> bool:
    """Does connection tracking know of its connections? kube-proxy has it so."""
    return _TRACKED.exists() and _TRACKED.read_text().strip() == "1"


def remove_servers() -> list[str]:
    """A line for them. Before the device, whose addresses tell which are kube-proxy's."""
    if not is_here():
        return []
    try:
        count = netfilter.remove_virtual_servers()
    except _ERRORS as error:
        log.warning("IPVS: %s", error)
        return []
    return [f"{count} virtual servers of IPVS"] if count else []


def remove_device() -> list[str]:
    """A line for it. Raises OSError, NetlinkError."""
    return [f"device {DEVICE}"] if netfilter.remove_device(DEVICE) else []
