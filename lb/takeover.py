"""Takes away what kube-proxy left in this network namespace, once our own data path serves.

New connections of sockets and from outside never meet its rules then. The rest of the order:
packets first (nat, then filter), what the rules pointed to, and last the memory of translated UDP
flows, which would go on to the old endpoint for as long as they are used. Connections over TCP go
on: connection tracking remembers their translation without any rule, as long as any chain of
the type nat is there. So where kube-proxy's nftables table was the only one, an empty chain of
ours takes its place in the same transaction, until `tidegate cleanup`.

Not for a kube-proxy that still runs: it would put everything back. Connections through IPVS end
with its virtual servers, as they do when kube-proxy itself leaves that mode.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bpf import netfilter
from lb.errors import KernelRefused
from lb.leftovers import removal

log = logging.getLogger("tidegate.takeover")

DEVICE = "kube-ipvs0"
"""Holds the addresses of services in kube-proxy's mode ipvs."""
TABLE, KEEPER = "kube-proxy", "tidegate-nat"
"""nftables: kube-proxy's table, and ours."""
_CHAIN = "{ type nat hook postrouting priority 100; policy accept; }"
_LEGACY = {
    "iptables-legacy": Path("/proc/net/ip_tables_names"),
    "ip6tables-legacy": Path("/proc/net/ip6_tables_names"),
}
"""The older kind of iptables is asked only where it has tables: asking makes them."""
_NFT = ("iptables-nft", "ip6tables-nft")

REST_SECONDS = 2.0
"""Whoever was in the midst of a connect when our programs came still sends its first packet to the
service, and needs kube-proxy's rules once more."""
Serves = Callable[[int, bytes, int], bool]
"""Is there a frontend of ours at protocol, address and port?"""


def take_over(serves: Serves) -> list[str]:
    """Remove everything; a line for each thing that went. What cannot be removed is logged."""
    removed: list[str] = []
    for step in (_nftables, _iptables, _virtual_servers, _sets):
        try:
            removed += step()
        except (KernelRefused, OSError, netfilter.NetlinkError) as error:
            log.warning("could not remove what kube-proxy left: %s", error)
    if removed:
        removed += _flows(serves)
    return removed


def is_back() -> bool:
    """Are there rules of kube-proxy's? After a take-over that means that it still runs."""
    if any(name == TABLE for _, name in _nft_tables()):
        return True
    return any(removal(_run([f"{program}-save"])) for program in _programs())


def watch(serves: Serves, stop: threading.Event, *, seconds: float = 60.0) -> None:
    """Take over, and look once more after a while. For a thread of its own; raises nothing."""
    if stop.wait(REST_SECONDS):
        return
    for line in take_over(serves):
        log.info("kube-proxy left this, and it is gone now: %s", line)
    if stop.wait(seconds):
        return
    try:
        if is_back():
            log.error(
                "kube-proxy still runs on this node, or something like it: its rules are there; "
                "stop it, or give --kube-proxy-rules keep"
            )
    except (KernelRefused, OSError) as error:
        log.warning("could not look for kube-proxy's rules: %s", error)


def give_back() -> list[str]:
    """Remove what a take-over made. Raises KernelRefused."""
    found = [family for family, name in _nft_tables() if name == KEEPER]
    for family in found:
        _run(["nft", "-f", "-"], f"delete table {family} {KEEPER}\n")
    return [f"nftables table {family} {KEEPER}" for family in found]


def _run(argv: list[str], text: str = "") -> str:
    """The program's output. Raises KernelRefused with its own last word."""
    done = subprocess.run(  # noqa: S603 - programs of this file's own
        argv, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise KernelRefused(f"{' '.join(argv)}: {said[-1] if said else done.returncode}")
    return done.stdout


def _nft_tables() -> list[tuple[str, str]]:
    """Family and name; none where nft is not installed."""
    if shutil.which("nft") is None:
        return []
    found = json.loads(_run(["nft", "-j", "list", "tables"]))["nftables"]
    tables = [one["table"] for one in found if "table" in one]
    return [(one["family"], one["name"]) for one in tables]


def _nftables() -> list[str]:
    found = [family for family, name in _nft_tables() if name == TABLE]
    if found:
        lines = []
        for family in found:
            lines += [
                f"add table {family} {KEEPER}",
                f"add chain {family} {KEEPER} keep {_CHAIN}",
                f"delete table {family} {TABLE}",
            ]
        _run(["nft", "-f", "-"], "\n".join(lines) + "\n")
    return [f"nftables table {family} {TABLE}" for family in found]


def _iptables() -> list[str]:
    removed = []
    for program in _programs():
        text = removal(_run([f"{program}-save"]))
        if text:
            _run([f"{program}-restore", "--noflush", "-w", "10"], text)
            removed.append(f"{text.count(f'{chr(10)}-X ')} chains of {program}")
    return removed


def _programs() -> Iterator[str]:
    """Those that are installed and have anything to look at."""
    for program in _NFT:
        if shutil.which(f"{program}-save"):
            yield program
    for program, names in _LEGACY.items():
        if names.exists() and names.read_text().strip() and shutil.which(f"{program}-save"):
            yield program


def _virtual_servers() -> list[str]:
    """Before the device, whose addresses tell which servers are kube-proxy's."""
    try:
        socket.if_nametoindex(DEVICE)
    except OSError:
        return []
    removed = []
    try:
        removed.append(f"{netfilter.remove_virtual_servers()} virtual servers of IPVS")
    except (OSError, netfilter.NetlinkError) as error:
        log.warning("IPVS: %s", error)
    if netfilter.remove_device(DEVICE):
        removed.append(f"device {DEVICE}")
    return removed


def _sets() -> list[str]:
    return [f"set {name}" for name in netfilter.remove_sets("KUBE-")]


def _flows(serves: Serves) -> list[str]:
    count = 0
    try:
        for one in list(netfilter.translated()):
            if one.protocol == 17 and serves(one.protocol, one.frontend, one.port):
                count += netfilter.forget(one)
    except (OSError, netfilter.NetlinkError) as error:
        log.warning("translated UDP flows: %s", error)
    return [f"{count} translated UDP flows"] if count else []
