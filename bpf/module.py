"""Compiles our C with bcc, or takes what was compiled before, pins programs; then it is gone.

Run as `python -m bpf.module`, a child process with a list of `Job` as JSON on standard input: who
has compiled holds some 120 MB of LLVM, and the agent shall not. The only importer of bcc, once
for all texts; each is then compiled by a process of its own, side by side.
On failure it exits 1 with one line for people last on standard error, the compiler's or the
verifier's own words before it. Tables are made before: that is `bpf.pins`.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bpf import layout, libbpf
from bpf.code import Codes, digest, keep, kept, load, portable
from bpf.create import create_tails
from bpf.source import HERE, joined

if TYPE_CHECKING:
    from bcc import BPF


TAILS = "tails"
"""The table of tail calls, pinned beside the programs."""


class Program(NamedTuple):
    """One program: its C function and how it is loaded (include/uapi/linux/bpf.h)."""

    name: str
    kind: int
    """enum bpf_prog_type."""
    attach_type: int
    """enum bpf_attach_type, -1: none."""
    tail: int = -1
    """Its place in the table `tails` of its C file: others hand over to it. -1: none."""


class Text(NamedTuple):
    """One C file, with its own constants, and what is loaded of it."""

    source: str
    programs: tuple[Program, ...]
    defines: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """What tells it from other texts, for people: `pod`, `pod-LOCAL_DEVICE-0`."""
        constants = ("-".join(one) for one in self.defines)
        return "-".join((self.source.removesuffix(".c"), *constants))


class Job(msgspec.Struct, frozen=True):
    """What to compile. `pins` maps each table to its path."""

    source: str
    defines: dict[str, str]
    pins: dict[str, str]
    entries: dict[str, int]
    programs: tuple[Program, ...]
    folder: str
    """Where the programs are pinned, each under its name; appears whole or not at all."""
    kept: str = ""
    """The folder of what was compiled before; empty: none."""

    def key(self) -> str:
        """Under which the programs are kept."""
        return digest(self.source, self.macros())

    def macros(self) -> dict[str, str]:
        """Every -D of the compilation."""
        paths = {f"PIN_{name}": f'"{path}"' for name, path in self.pins.items()}
        sizes = {f"MAX_{name}": str(count) for name, count in self.entries.items()}
        return self.defines | paths | sizes


class CompileError(Exception):
    """bcc or the kernel refused; the text is one line of what they said."""


class Compiling:
    """A child process at work on some jobs."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bpf.module"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._child.stdin is not None  # noqa: S101 - a pipe
        with suppress(BrokenPipeError):  # it died at once; `wait` says why
            self._child.stdin.write(msgspec.json.encode(list(jobs)))
        with suppress(BrokenPipeError):
            self._child.stdin.close()

    def wait(self) -> None:
        """Until all is pinned. Raises CompileError."""
        assert self._child.stderr is not None  # noqa: S101 - a pipe
        with self._child.stderr as stderr:
            said = condensed(stderr.read().decode(errors="replace"))
        if self._child.wait():
            raise CompileError(said or f"exit status {self._child.returncode}")


def compile_and_pin(job: Job) -> None:
    """Does one job in a child process. Raises CompileError."""
    Compiling([job]).wait()


def condensed(said: str) -> str:
    """One line of all that compiler or verifier said: where and what, or the verdict's reason."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for line in lines:
        if ": error: " in line:
            return line
    for before, line in itertools.pairwise(lines):
        if line.startswith("processed ") and " insns" in line:
            return f"{lines[-1]}: {before}"
    return lines[-1] if lines else ""


def _flags(job: Job) -> list[str]:
    multiarch = f"/usr/include/{sys.implementation._multiarch}"  # noqa: SLF001
    flags = ["-isystem", "/usr/include", "-isystem", multiarch, "-D__LINUX_BPF_H__"]
    flags += ["-Werror=implicit-function-declaration"]  # else a call into nowhere, found at load
    flags += ["-g0"]  # instructions are all that is kept; a seventh of the time
    return flags + [f"-D{name}={value}" for name, value in job.macros().items()]


def _guard(table: str, record: type[layout.Record], there: object) -> None:
    """Compares where bcc put each field with where layout.py has it: catches a stale install."""
    for field in record.FIELDS:
        offset = getattr(getattr(there, field.name, None), "offset", None)
        if offset != field.offset:
            raise CompileError(
                f"table {table}: field {field.name} lies at {offset}, layout.py has it at "
                f"{field.offset}; run python -m bpf.gen and install again"
            )


def _guard_tables(module: BPF, job: Job) -> None:
    from bcc.libbcc import lib  # noqa: PLC0415 - only the child pays for it

    for name, table in layout.TABLES.items():
        if table.kind == "ringbuf":  # it knows no layout
            continue
        size = lib.bpf_table_leaf_size(ctypes.c_void_p(module.module), name.encode())
        if size != table.leaf.SIZE:
            raise CompileError(f"table {name}: {size} bytes, layout.py has {table.leaf.SIZE}")
        if libbpf.map_info(libbpf.open_pin(job.pins[name])).value_size != size:
            raise CompileError(f"table {name}: {job.pins[name]} has values of another size")
        if table.kind == "sk_storage":  # bcc has no Python form of it: by its size alone
            continue
        bcc_table = module[name]
        _guard(name, table.leaf, getattr(bcc_table, "sLeaf", bcc_table.Leaf))  # sLeaf: of one CPU
        if table.key is not None:
            _guard(name, table.key, bcc_table.Key)


def _compiled(job: Job) -> Codes:
    """All programs of the text, good for any node's tables."""
    from bcc import BPF  # noqa: PLC0415 - only the child pays for it
    from bcc.libbcc import lib  # noqa: PLC0415

    module = BPF(text=joined(job.source), cflags=_flags(job))
    _guard_tables(module, job)
    handle = ctypes.c_void_p(module.module)
    names = [*layout.TABLES, TAILS]
    tables = {lib.bpf_table_fd(handle, name.encode()): name for name in names}
    return {
        program.name: portable(module.dump_func(program.name.encode()), tables)
        for program in job.programs
    }


def _pin(job: Job, codes: Codes) -> None:
    opened: dict[str, int] = {}

    def table(name: str) -> int:
        if name not in opened:
            is_here = name == TAILS  # the one table that each build has of its own
            opened[name] = create_tails() if is_here else libbpf.open_pin(job.pins[name])
        return opened[name]

    folder = Path(job.folder)
    folder.mkdir(parents=True)
    for program in job.programs:
        name, kind, attach_type, tail = program
        descriptor = load(name, kind, attach_type, codes[name], table)
        libbpf.pin(descriptor, str(folder / name))
        if tail >= 0:
            libbpf.update(
                table(TAILS), tail.to_bytes(4, "little"), descriptor.to_bytes(4, "little")
            )
    if TAILS in opened:
        # The kernel empties such a table with its last descriptor or pin.
        libbpf.pin(opened[TAILS], str(folder / TAILS))


def _do(job: Job) -> None:
    codes = kept(Path(job.kept), job.key()) if job.kept else None
    if codes is not None:
        with suppress(OSError, KeyError):  # a file that was spoilt costs no start
            _pin(job, codes)
            return
        shutil.rmtree(job.folder, ignore_errors=True)
    codes = _compiled(job)
    _pin(job, codes)
    if job.kept:
        keep(Path(job.kept), job.key(), codes)


_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 0x1000, 0x4000, 0x80000


def _hide_kernel_symbols() -> None:
    """For this process alone, /proc/kallsyms is empty from now on, where that is allowed.

    At each compilation bcc reads all 120,000 lines of it (0.13 s) to see whether a helper is there
    that none of our texts calls.
    """
    libc = ctypes.CDLL(None)
    if libc.unshare(_CLONE_NEWNS) == 0 and not libc.mount(
        b"none", b"/", None, _MS_REC | _MS_SLAVE, None
    ):
        libc.mount(b"/dev/null", b"/proc/kallsyms", None, _MS_BIND, None)


def _begin(job: Job) -> tuple[int, int]:
    """A process for the job; its id, and a file with what it says in the end."""
    said = os.memfd_create("said")
    child = os.fork()
    if child:
        return child, said
    os.dup2(said, sys.stderr.fileno())
    status = 1
    try:
        _do(job)
        status = 0
    except Exception as error:  # noqa: BLE001 - bcc raises bare Exception
        notes = "\n".join(getattr(error, "__notes__", ()))
        text = getattr(error, "strerror", None) or error
        os.write(said, f"{notes}\n{job.source}: {text}\n".encode())
    finally:
        os._exit(status)


def main() -> int:
    """The child: 0 when all is pinned."""
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job])
    gc.disable()
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)  # bpf/include stands in for kernel headers
    if not all(job.kept and kept(Path(job.kept), job.key()) for job in jobs):
        import bcc  # noqa: F401, PLC0415 - once for all that are forked

        _hide_kernel_symbols()
    failed = 0
    for child, said in [_begin(job) for job in jobs]:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            failed = 1
            os.lseek(said, 0, os.SEEK_SET)
            with open(said, "rb") as text:  # noqa: PTH123 - a descriptor
                sys.stderr.buffer.write(text.read() or f"ended with {status}\n".encode())
    return failed


if __name__ == "__main__":
    sys.exit(main())
