"""Compiled programs as bytes: kept in a folder, and loaded with the tables of any node.

The compiler takes a second or two and 120 MB; what it made of one text, with the same constants,
on the same kernel, is good for every agent. Not for compiling (`bpf.module`).
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from bpf import libbpf
from bpf.source import joined

_INSTRUCTION = 8
_LD_IMM64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM; linux/bpf.h
_PSEUDO_MAP_FD = 1  # in the source register: the constant is a map's descriptor
LICENCE = "GPL"
"""As the kernel wants to hear it, for helpers that it gives to no other."""


class Code(msgspec.Struct, frozen=True):
    """A program's instructions, and where in them which table's descriptor belongs.

    `tables`: the instruction's number, and the table's name.
    """

    instructions: bytes
    tables: tuple[tuple[int, str], ...]


Codes = dict[str, Code]
"""By the program's name."""


def portable(instructions: bytes, tables: Mapping[int, str]) -> Code:
    """Instructions with descriptors of `tables` in them, without those. Raises KeyError."""
    made = bytearray(instructions)
    found = []
    for at in range(0, len(made), _INSTRUCTION):
        if made[at] == _LD_IMM64 and made[at + 1] >> 4 == _PSEUDO_MAP_FD:
            descriptor = int.from_bytes(made[at + 4 : at + 8], "little")
            found.append((at // _INSTRUCTION, tables[descriptor]))
            made[at + 4 : at + 8] = bytes(4)
    return Code(bytes(made), tuple(found))


def load(name: str, kind: int, attach_type: int, code: Code, table: Callable[[str], int]) -> int:
    """The program in the kernel; `table` gives a descriptor for a name. Raises OSError."""
    made = bytearray(code.instructions)
    for number, wanted in code.tables:
        at = number * _INSTRUCTION + 4
        made[at : at + 4] = table(wanted).to_bytes(4, "little")
    return libbpf.load(name, kind, attach_type, LICENCE, bytes(made))


def digest(source: str, macros: Mapping[str, str]) -> str:
    """Of all that decides what the compiler makes; not of where tables are pinned."""
    constants = sorted(one for one in macros.items() if not one[0].startswith("PIN_"))
    text = "\0".join([joined(source), repr(constants), platform.machine(), platform.release()])
    return hashlib.sha256(text.encode()).hexdigest()


def kept(folder: Path, key: str) -> Codes | None:
    """What was compiled once; None: nothing, or nothing that only its owner could write."""
    path = folder / key
    try:
        for one in (folder, path):
            found = one.stat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return None
        return msgspec.msgpack.decode(path.read_bytes(), type=Codes)
    except (OSError, msgspec.MsgspecError):
        return None


def keep(folder: Path, key: str, codes: Codes) -> None:
    """For the next time; where that cannot be, it is compiled again."""
    unfinished = folder / f"{key}-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.write_bytes(msgspec.msgpack.encode(codes))
        unfinished.chmod(0o600)
        unfinished.rename(folder / key)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
