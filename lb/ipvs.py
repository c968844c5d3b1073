"""Comes after kube-proxy's mode ipvs: its virtual servers go, and connections through them go on.

They cannot stay for the sake of those connections: IPVS remembers each that is over for two
minutes, and a client that comes to a pod from the same port in that time, as sockets do once we
translate their connects, has its answers taken for the old one's and hangs. So the servers go at
once, and connection tracking translates what was open (`bpf.conntrack`). When IPVS forgets a
connection it has the entry of connection tracking removed as well, so ours come after that; until
then packets of those connections are dropped, which costs each a retransmission.

The device that holds the servers' addresses stays while a connection comes from one of these: the
kernel has processes of the node ask with the service's own address.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from bpf import conntrack, netfilter
from bpf.conntrack import Server, Through
from lb.errors import KernelRefused
from lb.tools import run

log = logging.getLogger("tidegate.takeover")

DEVICE = "kube-ipvs0"
"""Holds the addresses of services in kube-proxy's mode ipvs."""
HUSH = "tidegate-hush"
"""The nftables table that drops packets of connections while they change hands."""
IDLE_SECONDS, LOOK_SECONDS = 300.0, 2.0
"""The longest wait for connections that cannot be helped, and the pause between two looks."""
FORGET_SECONDS, AGAIN_SECONDS = 5.0, 0.01
"""IPVS forgets a tick after its server went, from Linux 5.9 on; the pause between two looks."""
_SETTINGS = Path("/proc/sys/net/ipv4/vs")
_NEEDED = ("conntrack", "expire_nodest_conn")
"""To move connections: they are tracked, and forgotten with their server. kube-proxy sets both."""
_REMEMBERED = Path("/proc/net/ip_vs_conn")
_OPEN = ("SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK")
"""States in which an end may still send."""
_ERRORS = (OSError, netfilter.NetlinkError)
_RULES = """\
table inet {table} {{
    set four {{
        type ipv4_addr . inet_service . ipv4_addr . inet_service
        flags timeout
    }}
    set six {{
        type ipv6_addr . inet_service . ipv6_addr . inet_service
        flags timeout
    }}
    chain both {{
        ip saddr . tcp sport . ip daddr . tcp dport @four drop
        ip6 saddr . tcp sport . ip6 daddr . tcp dport @six drop
    }}
    chain before {{
        type filter hook prerouting priority -450
        jump both
    }}
    chain out {{
        type filter hook output priority -450
        jump both
    }}
}}
"""
"""Before connection tracking, at -200. Elements go by themselves should nobody take them out."""


def is_here() -> bool:
    """Was it in use, and is anything of it left?"""
    try:
        socket.if_nametoindex(DEVICE)
    except OSError:
        return False
    return True


def remove_servers(stop: threading.Event | None) -> list[str]:
    """A line for them. Where connections cannot be moved, they are waited for until `stop`.

    Before the device, whose addresses tell which are kube-proxy's. Raises OSError, NetlinkError,
    KernelRefused.
    """
    if not is_here():
        return []
    moving = all(map(_is_set, _NEEDED)) and shutil.which("nft") is not None
    why = "go on through IPVS, whose servers stay as long"
    if not moving and not _waited(netfilter.active_connections, why, stop):
        return []
    servers = netfilter.virtual_servers()
    ways = [one for one in open_connections() if one[1] in servers] if moving else []
    through = list(conntrack.through(ways))
    with _hushed(through):
        count = netfilter.remove_virtual_servers()
        if through:
            _await_forgotten(servers)
        errors = conntrack.move(through)
    if through:
        log.info("%d connections through IPVS go on by connection tracking", errors.count(0))
    if any(errors):
        lost, word = len(errors) - errors.count(0), os.strerror(max(errors))
        log.warning("%d connections through IPVS could not be moved, and are cut: %s", lost, word)
    return [f"{count} virtual servers of IPVS"] if count else []


def remove_device(stop: threading.Event | None) -> list[str]:
    """A line for it, once there are no servers, and no connection comes from its addresses.

    Raises OSError, NetlinkError.
    """
    if not is_here() or netfilter.has_virtual_servers():
        return []
    why = f"of this node's own come from addresses of {DEVICE}, which stays as long"
    if not _waited(_from_device, why, stop):
        return []
    return [f"device {DEVICE}"] if netfilter.remove_device(DEVICE) else []


def _waited(count: Callable[[], int], why: str, stop: threading.Event | None) -> bool:
    """False: told to stop before they were over."""
    deadline, is_told = time.monotonic() + IDLE_SECONDS, False
    while stop is not None and is_here() and time.monotonic() < deadline:
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


def _from_device() -> int:
    return conntrack.open_from(netfilter.addresses_of(DEVICE))


def _is_set(name: str) -> bool:
    path = _SETTINGS / name
    return path.exists() and path.read_text().strip() == "1"


def _await_forgotten(servers: Collection[Server]) -> None:
    deadline = time.monotonic() + FORGET_SECONDS
    while _remembers(servers) and time.monotonic() < deadline:
        time.sleep(AGAIN_SECONDS)


def _remembers(servers: Collection[Server]) -> bool:
    frontends = {(words[3], words[4]) for words in _remembered()}  # of many, few are different
    return any(_server(*one) in servers for one in frontends)


def open_connections() -> Iterator[tuple[Server, Server]]:
    """Client and frontend of those over TCP in which an end may still send. Raises OSError."""
    for words in _remembered():
        if words[7] in _OPEN:
            yield _server(*words[1:3]), _server(*words[3:5])


def _remembered() -> Iterator[list[str]]:
    """Of each over TCP: protocol, client, port, frontend, port, backend, port, state, ..."""
    if _REMEMBERED.exists():
        lines = _REMEMBERED.read_text().splitlines()
        yield from (line.split() for line in lines if line.startswith("TCP "))


def _server(address: str, port: str) -> Server:
    """All numbers are hexadecimal."""
    number = address if ":" in address else int(address, 16)
    return Server(str(ip_address(number)), int(port, 16))


@contextmanager
def _hushed(connections: Collection[Through]) -> Iterator[None]:
    """Meanwhile their packets are dropped: none meets half of the change."""
    if not connections:
        yield
        return
    seconds = int(2 * FORGET_SECONDS)
    lines = [
        f"add element inet {HUSH} {'six' if ':' in one.address else 'four'} {{ "
        f"{one.address} . {one.port} . {other.address} . {other.port} timeout {seconds}s }}\n"
        for connection in connections
        for one, other in connection.ways
    ]
    run(["nft", "-f", "-"], _RULES.format(table=HUSH) + "".join(lines))
    try:
        yield
    finally:
        let_speak()


def let_speak() -> list[str]:
    """Take those rules away, also an agent's that died meanwhile. Raises KernelRefused."""
    try:
        run(["nft", "delete", "table", "inet", HUSH])
    except KernelRefused as error:
        if "No such file" not in str(error):
            raise
        return []
    return [f"nftables table inet {HUSH}"]
