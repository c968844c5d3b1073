"""Attaches the socket programs to a cgroup by pinned links.

A pinned link outlives the agent, leaves other programs on the cgroup alone, and takes a new
program in one step (Linux 5.7). Replies are attached before requests, so that a crash half-way
through a first start leaves no socket that is translated one way only.
"""

from __future__ import annotations

import os
from pathlib import Path

from bpf import libbpf
from bpf.module import Program

_SKB, _SOCK, _SOCK_ADDR = 8, 9, 18  # enum bpf_prog_type

SOCKET_HOOKS = (
    Program("recvmsg4", _SOCK_ADDR, 19),
    Program("recvmsg6", _SOCK_ADDR, 20),
    Program("getpeername4", _SOCK_ADDR, 29),
    Program("getpeername6", _SOCK_ADDR, 30),
    Program("sock_release", _SOCK, 34),
    Program("sendmsg4", _SOCK_ADDR, 14),
    Program("sendmsg6", _SOCK_ADDR, 15),
    Program("connect4", _SOCK_ADDR, 10),
    Program("connect6", _SOCK_ADDR, 11),
)
"""In the order of attaching."""

GUARD = Program("guard", _SKB, 1)
"""Sees every packet that leaves: attached only while something must be dropped in silence."""


def attach(program: Program, programs: Path, links: Path, cgroup: Path) -> bool:
    """Sees to it that the pinned program is the one in force; False: it already was.

    Raises OSError.
    """
    path = links / program.name
    new = libbpf.open_pin(str(programs / program.name))
    try:
        link = _open_if_good(path, cgroup)
        if link is None:
            _attach_anew(new, program, path, cgroup)
            return True
        try:
            if libbpf.link_info(link).program == libbpf.program_id(new):
                return False
            libbpf.link_update(link, new)
        finally:
            os.close(link)
        return True
    finally:
        os.close(new)


def is_attached(program: Program, links: Path, cgroup: Path) -> bool:
    """Is the hook's link there, alive, and on this cgroup?"""
    link = _open_if_good(links / program.name, cgroup)
    if link is None:
        return False
    os.close(link)
    return True


def _open_if_good(path: Path, cgroup: Path) -> int | None:
    """The pinned link, unless there is none or it belongs to another or a removed cgroup."""
    try:
        link = libbpf.open_pin(str(path))
    except FileNotFoundError:
        return None
    if cgroup.exists() and libbpf.link_info(link).cgroup == cgroup.stat().st_ino:
        return link
    os.close(link)
    return None


def pin_anew(fd: int, path: Path) -> None:
    """Pins an object in place of whatever is there, and closes it also where that fails.

    A link that nobody pinned would go on for as long as it is open, and nobody would find it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        libbpf.pin(fd, str(path))
    finally:
        os.close(fd)


def _attach_anew(program_fd: int, program: Program, path: Path, cgroup: Path) -> None:
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        link = libbpf.link_create(program_fd, folder, program.attach_type)
    finally:
        os.close(folder)
    pin_anew(link, path)
