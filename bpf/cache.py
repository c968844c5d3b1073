"""Programs as bcc compiled them, kept in files: a node that boots again need not compile again.

A file's name is a digest of all that decides what is in it: text, constants, programs, compiler,
kernel. The instructions name tables by number where they will have the descriptor of one
(BPF_PSEUDO_MAP_FD, include/uapi/linux/bpf.h); the kernel's verifier judges them as it
judges what was compiled just now. Without the folder, or with a file that cannot be used, all is
compiled: a cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import stat
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from bpf import libbpf

KEPT = 32
"""Files; the oldest go."""
_LOAD_64, _MAP = 0x18, 1
"""The one instruction of two halves (BPF_LD | BPF_IMM | BPF_DW), and the source register that says
that its value is a map's descriptor."""


class Code(msgspec.Struct, frozen=True):
    """The instructions of some programs, and the tables that the numbers in them stand for."""

    programs: dict[str, bytes]
    tables: list[str]


_decoder = msgspec.msgpack.Decoder(Code)


def key(*parts: object) -> str:
    """The name of the file for a text with these `parts`, on this kernel with this compiler."""
    here = (platform.release(), platform.machine(), compiler())
    return hashlib.sha256(repr((parts, here)).encode()).hexdigest()[:32]


def compiler() -> str:
    """Which bcc is installed, without loading it."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return ""
    with suppress(OSError):
        return Path(spec.origin).with_name("version.py").read_text()
    return spec.origin


def numbered(code: bytes, number: Callable[[int], int]) -> bytes:
    """The same instructions with what stands for a map replaced: a descriptor, or a number."""
    changed = bytearray(code)
    for at in _map_loads(code):
        (before,) = struct.unpack_from("<i", code, at + 4)
        struct.pack_into("<i", changed, at + 4, number(before))
    return bytes(changed)


def _map_loads(code: bytes) -> Iterator[int]:
    """Where in the code a map's descriptor is loaded."""
    at = 0
    while at + 16 <= len(code):
        is_double = code[at] == _LOAD_64
        if is_double and code[at + 1] >> 4 == _MAP:
            yield at
        at += 16 if is_double else 8


def read(folder: Path | None, name: str) -> Code | None:
    """What was kept under that name; None: nothing that may be trusted."""
    if folder is None:
        return None
    path = folder / name
    try:
        if not all(_is_ours(one) for one in (folder, path)):
            return None
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _is_ours(path: Path) -> bool:
    """Nobody else can write it."""
    found = path.lstat()
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write(folder: Path, name: str, code: Code) -> None:
    """Keep it; a folder that cannot be written keeps nothing."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = folder / f".{name}-{os.getpid()}"
        part.write_bytes(msgspec.msgpack.encode(code))
        part.chmod(0o600)
        part.rename(folder / name)
        kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT:]:
            path.unlink(missing_ok=True)


def load(
    code: Code, programs: Collection[tuple[str, int, int]], pins: Mapping[str, str], folder: Path
) -> None:
    """Loads and pins programs, given as name, type and attach type. Raises OSError, KeyError."""
    tables = [libbpf.open_pin(pins[name]) for name in code.tables]
    try:
        folder.mkdir(parents=True)
        for name, kind, attach_type in programs:
            text = numbered(code.programs[name], tables.__getitem__)
            program = libbpf.load_program(name, kind, attach_type, text)
            libbpf.pin(program, str(folder / name))
            os.close(program)
    finally:
        for table in tables:
            os.close(table)
