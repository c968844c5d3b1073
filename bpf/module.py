"""Compiles our C with bcc, guards the layouts, pins maps and programs; then it is gone.

Run as `python -m bpf.module`, a child process with a `Job` as JSON on standard input: who has
compiled holds some 120 MB of LLVM, and the agent shall not. The only importer of bcc.
On failure it exits 1 with one line for people last on standard error, the compiler's or the
verifier's own words before it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bpf import layout, libbpf
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


class Job(msgspec.Struct, frozen=True):
    """What to compile. `pins` maps each table to its path: opened if there, else created."""

    source: str
    defines: dict[str, str]
    pins: dict[str, str]
    entries: dict[str, int]
    programs: tuple[Program, ...]
    folder: str
    """Where the programs are pinned, each under its name; appears whole or not at all."""

    def macros(self) -> dict[str, str]:
        """Every -D of the compilation."""
        paths = {f"PIN_{name}": f'"{path}"' for name, path in self.pins.items()}
        sizes = {f"MAX_{name}": str(count) for name, count in self.entries.items()}
        return self.defines | paths | sizes


class CompileError(Exception):
    """bcc or the kernel refused; the text is one line of what they said."""


def compile_and_pin(job: Job) -> None:
    """Does the job in a child process. Raises CompileError."""
    child = subprocess.run(
        [sys.executable, "-m", "bpf.module"],
        input=msgspec.json.encode(job),
        capture_output=True,
        check=False,
    )
    if child.returncode:
        said = condensed(child.stderr.decode(errors="replace"))
        raise CompileError(said or f"exit status {child.returncode}")


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
    for name, table in layout.TABLES.items():
        if table.kind == "sk_storage":  # bcc has no Python form of it: by its size alone
            size = libbpf.map_info(libbpf.open_pin(job.pins[name])).value_size
            if size != table.leaf.SIZE:
                raise CompileError(f"table {name}: {size} bytes, layout.py has {table.leaf.SIZE}")
            continue
        bcc_table = module[name]
        _guard(name, table.leaf, getattr(bcc_table, "sLeaf", bcc_table.Leaf))  # sLeaf: of one CPU
        if table.key is not None:
            _guard(name, table.key, bcc_table.Key)


def _load(module: BPF, job: Job) -> None:
    folder = Path(job.folder)
    folder.mkdir(parents=True)
    for program in job.programs:
        function = module.load_func(program.name, program.kind, None, program.attach_type)
        libbpf.pin(function.fd, str(folder / program.name))
        if program.tail >= 0:
            module["tails"][ctypes.c_int(program.tail)] = ctypes.c_int(function.fd)
    if any(program.tail >= 0 for program in job.programs):
        # The kernel empties such a table with its last descriptor or pin.
        libbpf.pin(module["tails"].map_fd, str(folder / TAILS))


def _do(job: Job) -> None:
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)  # bpf/include stands in for kernel headers
    from bcc import BPF  # noqa: PLC0415 - only the child pays for it

    module = BPF(text=joined(job.source), cflags=_flags(job))
    _guard_tables(module, job)
    _load(module, job)


def main() -> int:
    """The child: 0 when all is pinned."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        _do(job)
    except Exception as error:  # noqa: BLE001 - bcc raises bare Exception
        sys.stderr.write(f"{job.source}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
