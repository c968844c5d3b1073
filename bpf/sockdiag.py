"""Lists UDP sockets, says what our programs remember of one, and ends it (sock_diag(7)).

The kernel shows socket storage beside TCP sockets only, so a UDP socket's is read through a
copy of its descriptor (pidfd_getfd(2), Linux 5.6). pyroute2 writes and reads the messages; the
netlink socket is a plain one, since it has to be opened in the namespace that is looked at.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, nlmsg
from pyroute2.netlink.diag import (
    SOCK_DESTROY,
    SOCK_DIAG_BY_FAMILY,
    SS_ALL,
    inet_diag_msg,
    inet_diag_req,
)

from bpf import libbpf
from bpf.layout import Peer

_NETLINK_SOCK_DIAG = 4
_HEADER = 16  # bytes of struct nlmsghdr
_PIDFD_GETFD = 438  # the same system call number on every architecture
_V4_MAPPED = bytes(10) + b"\xff\xff"


class Socket(NamedTuple):
    """A UDP socket with a peer: 16 bytes of address, host-order port, and its kernel identity."""

    family: int
    address: bytes
    port: int
    inode: int
    identity: dict[str, Any]


class _Message(inet_diag_msg):  # type: ignore[misc]
    """inet_diag_msg whose addresses stay numbers, as a request wants them back."""

    def decode(self) -> None:
        nlmsg.decode(self)


def with_peer() -> Iterator[Socket]:
    """The UDP sockets of this thread's network namespace that have a peer. Raises OSError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = inet_diag_req()
        request["sdiag_family"], request["sdiag_protocol"] = family, socket.IPPROTO_UDP
        request["idiag_states"] = SS_ALL
        for raw in _ask(request, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP):
            message = _Message(raw)
            message.decode()
            if message["idiag_dport"]:
                yield _socket(family, message)


def _socket(family: int, message: _Message) -> Socket:
    names = ("idiag_sport", "idiag_dport", "idiag_src", "idiag_dst", "idiag_if", "idiag_cookie")
    words = message["idiag_dst"]
    if family == socket.AF_INET:
        address = _V4_MAPPED + words[0].to_bytes(4)
    else:
        address = b"".join(word.to_bytes(4) for word in words)
    identity = {name: message[name] for name in names}
    return Socket(family, address, message["idiag_dport"], message["idiag_inode"], identity)


def destroy(one: Socket) -> bool:
    """Ends the socket: its owner's next call fails with ECONNABORTED. False: it was gone.

    Raises OSError (EOPNOTSUPP: a kernel without INET_DIAG_DESTROY).
    """
    request = inet_diag_req()
    request["sdiag_family"], request["sdiag_protocol"] = one.family, socket.IPPROTO_UDP
    request["idiag_states"] = SS_ALL
    for name, value in one.identity.items():
        request[name] = value
    try:
        for _ in _ask(request, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK):
            pass
    except FileNotFoundError:
        return False
    return True


def peers(map_fd: int, inodes: Collection[int], processes: Collection[int]) -> dict[int, Peer]:
    """What the map `connected` holds for these inodes, sockets of these processes."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Peer] = {}
    for pid in processes:
        if len(found) == len(wanted):
            break
        for number, link in _descriptors(pid):
            inode = wanted.get(link)
            if inode is not None and inode not in found:
                peer = _peer(map_fd, pid, number)
                if peer is not None:
                    found[inode] = peer
    return found


def _descriptors(pid: int) -> Iterator[tuple[int, str]]:
    folder = Path(f"/proc/{pid}/fd")
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a Path for each would cost more than the call
    except OSError:
        return  # it ended
    for name in names:
        try:
            yield int(name), os.readlink(folder / name)  # noqa: PTH115 - likewise
        except OSError:
            continue


def _peer(map_fd: int, pid: int, number: int) -> Peer | None:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    if copy < 0:
        return None
    try:
        raw = libbpf.lookup(map_fd, copy.to_bytes(4, "little"), Peer.SIZE)
    finally:
        os.close(copy)
    peer = Peer.unpack(raw) if raw else None
    return peer if peer is not None and peer.port else None


def _ask(request: Any, kind: int, flags: int) -> Iterator[bytes]:
    """Sends a request; yields each answer until the kernel says that it is done."""
    request["header"]["type"], request["header"]["flags"] = kind, flags
    request.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(10)
        link.send(request.data)
        while True:
            data = link.recv(1 << 18)
            while data:
                length = int.from_bytes(data[:4], "little")
                message_type = int.from_bytes(data[4:6], "little")
                if message_type == NLMSG_DONE:
                    return
                if message_type == NLMSG_ERROR:
                    _raise(int.from_bytes(data[_HEADER : _HEADER + 4], "little", signed=True))
                    return
                yield data[:length]
                data = data[(length + 3) & ~3 :]


def _raise(code: int) -> None:
    if code:
        raise OSError(-code, f"sock_diag: {os.strerror(-code)}")
