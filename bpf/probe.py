"""What this kernel offers: yes, no, or unknown for each feature, with the version it came in."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bpf import libbpf
from bpf.qdisc import has_fq

_SOCK_ADDR, _SOCK, _SKB = 18, 9, 8  # enum bpf_prog_type
_LPM_TRIE, _SK_STORAGE, _LRU_HASH = 11, 24, 9  # enum bpf_map_type
_SET_RETVAL, _NETNS_COOKIE, _STORAGE_GET = 187, 122, 107  # enum bpf_func_id


class Feature(NamedTuple):
    """One thing a node may have. `there` None: could not find out."""

    name: str
    there: bool | None
    since: str
    """The kernel version that brought it."""
    without: str
    """What goes without it."""
    required: bool


def has_set_retval() -> bool:
    """Can a socket program choose the errno of a refused call?"""
    return libbpf.has_helper(_SOCK_ADDR, _SET_RETVAL) is True


def features(cgroup: Path | None) -> list[Feature]:
    """Everything that the agent asks of a kernel; `cgroup` is where it would attach."""
    rows: list[tuple[str, Callable[[], bool | None], str, str, bool]] = [
        ("socket address programs", lambda: libbpf.has_program_type(_SOCK_ADDR), "5.8",
         "no east-west balancing", True),
        ("cgroup socket programs", lambda: libbpf.has_program_type(_SOCK), "5.9",
         "no counts of open connections", True),
        ("cgroup packet programs", lambda: libbpf.has_program_type(_SKB), "4.10",
         "no silent drop for Local policies, no source ranges", True),
        ("socket storage", _has_socket_storage, "5.8",
         "replies would not show the service's address", True),
        ("network namespace cookie", lambda: libbpf.has_helper(_SOCK_ADDR, _NETNS_COOKIE), "5.7",
         "no session affinity", True),
        ("errno of refused calls", lambda: libbpf.has_helper(_SOCK_ADDR, _SET_RETVAL), "5.18",
         "a connect without backends fails with EPERM in place of ECONNREFUSED", False),
        ("LPM trie", lambda: libbpf.has_map_type(_LPM_TRIE), "4.11", "no source ranges", True),
        ("LRU hash", lambda: libbpf.has_map_type(_LRU_HASH), "4.10", "no session affinity", True),
        ("ending UDP sockets", _can_destroy, "4.9",
         "clients of a removed UDP backend have to notice by themselves", False),
        ("fq queue", has_fq, "4.20", "no pod bandwidth limits", False),
        ("cgroup v2", lambda: None if cgroup is None else _is_cgroup2(cgroup), "4.5",
         "nothing to attach to: mount a cgroup2 and name it with --cgroup", True),
        ("bcc", _has_bcc, "", "programs cannot be compiled: install python3-bpfcc", True),
    ]  # fmt: skip
    return [
        Feature(name, probe(), since, without, required)
        for name, probe, since, without, required in rows
    ]


def kernel() -> str:
    """The running kernel's release."""
    return platform.release()


def _has_socket_storage() -> bool | None:
    has_map = libbpf.has_map_type(_SK_STORAGE)
    has_helper = libbpf.has_helper(_SOCK_ADDR, _STORAGE_GET)
    if has_map is None or has_helper is None:
        return None
    return has_map and has_helper


def _can_destroy() -> bool | None:
    """By the kernel's own configuration, where it shows one."""
    import gzip  # noqa: PLC0415 - only here

    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        try:
            text = Path(f"/boot/config-{kernel()}").read_text()
        except OSError:
            return None
    return "CONFIG_INET_DIAG_DESTROY=y" in text


def _is_cgroup2(folder: Path) -> bool:
    return (folder / "cgroup.procs").exists() and (folder / "cgroup.controllers").exists()


def _has_bcc() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - only here

    return find_spec("bcc") is not None
