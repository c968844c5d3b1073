"""What a machine must have to carry the bed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.bed import cgroup

_PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ethtool": "ethtool",
    "nginx": "nginx",
    "dnsmasq": "dnsmasq-base",
    "iperf3": "iperf3",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "bird": "bird2",
}
"""Programs, and the Debian package of each."""


def missing() -> str:
    """What this machine lacks for the bed, in one line; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if cgroup.mount_point() is None:
        return "needs cgroup v2: none is mounted"
    if not Path("/proc/self/ns/net").exists():
        return "needs network namespaces: the kernel has none"
    if not Path("/proc/net/if_inet6").exists():
        return "needs IPv6: the kernel has it switched off"
    absent = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    return f"needs the packages {' '.join(absent)}" if absent else ""
