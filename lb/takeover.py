"""Takes away what kube-proxy left in this network namespace, once our own data path serves.

New connections of sockets and from outside never meet its rules then. The rest of the order:
packets first (nat, then filter), what the rules pointed to, and last the memory of translated UDP
flows, which would go on to the old endpoint for as long as they are used. Connections over TCP go
on: connection tracking remembers their translation without any rule, as long as there is a chain
of the type nat, and a rule that asks of connection tracking: kube-proxy's may have been the only
ones. So a chain of ours has both, which does nothing else, until `tidegate cleanup`.

Not for what mode ipvs left, which is `lb.ipvs`; nor for a kube-proxy that still runs, which
would put everything back: `lb.handover` says when.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bpf import conntrack, netfilter
from lb import ipvs
from lb.errors import KernelRefused
from lb.leftovers import SETS, removal
from lb.tools import run

log = logging.getLogger("tidegate.takeover")

TABLE, KEEPER = "kube-proxy", "tidegate-nat"
"""nftables: kube-proxy's table, and ours."""
_KEEP = """\
add table {family} {table}
add chain {family} {table} keep {{ type nat hook postrouting priority 100; policy accept; }}
flush chain {family} {table} keep
add rule {family} {table} keep ct state established accept
"""
"""In a chain of this type only first packets meet rules: this one matches none."""
_LEGACY = {
    "iptables-legacy": Path("/proc/net/ip_tables_names"),
    "ip6tables-legacy": Path("/proc/net/ip6_tables_names"),
}
"""The older kind of iptables is asked only where it has tables: asking makes them."""
_NFT = ("iptables-nft", "ip6tables-nft")

Serves = Callable[[int, bytes, int], bool]
"""Is there a frontend of ours at protocol, address and port?"""


def take_over(serves: Serves) -> list[str]:
    """Remove everything at once; a line for each thing that went. What cannot go is logged."""
    return [*remove_rules(serves), *remove_servers(None), *remove_device(None)]


def remove_rules(serves: Serves) -> list[str]:
    """All but what connections still need."""
    removed = [line for step in (_keep, _nftables, _iptables, _sets) for line in _tried(step)]
    return [*removed, *(_flows(serves) if removed else ())]


def _tried(step: Callable[[], list[str]]) -> list[str]:
    try:
        return step()
    except (KernelRefused, OSError, netfilter.NetlinkError) as error:
        log.warning("could not remove what kube-proxy left: %s", error)
        return []


def remove_servers(stop: threading.Event | None) -> list[str]:
    """The virtual servers of IPVS; a line for them."""
    return _tried(lambda: ipvs.remove_servers(stop))


def remove_device(stop: threading.Event | None) -> list[str]:
    """And their device, once it may go."""
    return _tried(lambda: ipvs.remove_device(stop))


def traces() -> bool:
    """Does anything look like kube-proxy's? A cheap look, which other's chains may deceive.

    Raises KernelRefused, OSError.
    """
    if any(name == TABLE for _, name in _nft_tables()) or ipvs.is_here():
        return True
    # One short chain: with all of them there may be a hundred thousand rules.
    return any(_has_chain(program, "nat", "KUBE-POSTROUTING") for program in _programs())


def _has_chain(program: str, table: str, chain: str) -> bool:
    if program in _LEGACY and table not in _LEGACY[program].read_text().split():
        return False  # to ask for a table makes it
    asked = [program, "-w", "10", "-t", table, "-S", chain]
    return not subprocess.run(asked, capture_output=True, check=False).returncode  # noqa: S603


def give_back() -> list[str]:
    """Remove what a take-over made. Raises KernelRefused."""
    tables = _nft_tables()
    found = [family for family, name in tables if name == KEEPER]
    for family in found:
        run(["nft", "-f", "-"], f"delete table {family} {KEEPER}\n")
    hushed = ipvs.let_speak() if ("inet", ipvs.HUSH) in tables else []
    return hushed + [f"nftables table {family} {KEEPER}" for family in found]


def _nft_tables() -> list[tuple[str, str]]:
    """Family and name; none where nft is not installed."""
    if shutil.which("nft") is None:
        return []
    found = json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]
    tables = [one["table"] for one in found if "table" in one]
    return [(one["family"], one["name"]) for one in tables]


def _keep() -> list[str]:
    if shutil.which("nft") and traces():
        run(
            ["nft", "-f", "-"], "".join(_KEEP.format(family=f, table=KEEPER) for f in ("ip", "ip6"))
        )
    return []


def _nftables() -> list[str]:
    found = [family for family, name in _nft_tables() if name == TABLE]
    if found:
        run(["nft", "-f", "-"], "".join(f"delete table {family} {TABLE}\n" for family in found))
    return [f"nftables table {family} {TABLE}" for family in found]


def _iptables() -> list[str]:
    removed = []
    for program in _programs():
        text = removal(run([f"{program}-save"]))
        if text:
            run([f"{program}-restore", "--noflush", "-w", "10"], text)
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


def _sets() -> list[str]:
    return [f"set {name}" for name in netfilter.remove_sets(SETS)]


def _flows(serves: Serves) -> list[str]:
    count = 0
    try:
        for one in list(conntrack.translated()):
            if one.protocol == 17 and serves(one.protocol, one.frontend, one.port):
                count += conntrack.forget(one)
    except (OSError, netfilter.NetlinkError) as error:
        log.warning("translated UDP flows: %s", error)
    return [f"{count} translated UDP flows"] if count else []
