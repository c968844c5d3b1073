"""The folder on a bpffs that holds a node's data path: maps, programs, links.

    DIR/maps/NAME-DIGEST-ENTRIES   one file a table; the digest is that of its layout
    DIR/programs/LABEL-DIGEST/NAME one folder a build: text and constants make the digest
    DIR/links/NAME                 what is attached

A table whose layout or size changed gets a new file beside the old one; entries of the same
layout are carried over before it gets its name, and `sweep` removes what nothing uses.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from bpf import libbpf
from bpf.create import create
from bpf.layout import TABLES
from bpf.maps import KernelArray, KernelHash, KernelPerCpu, open_array, open_hash, open_per_cpu
from bpf.module import CompileError, Compiling, Job, Program, Text
from bpf.ring import Ring
from bpf.source import joined

BPFFS = Path("/sys/fs/bpf")
_BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h
_FORMER = "-former-"


def mount(folder: Path) -> bool:
    """Sees to it that `folder` lies on a bpffs and exists; True: it had to be mounted.

    Below /sys/fs/bpf that is where it is mounted, else on `folder` itself. Raises OSError.
    """
    target = BPFFS if folder.is_relative_to(BPFFS) else folder
    target.mkdir(parents=True, exist_ok=True)
    fresh = not is_bpffs(target)
    if fresh:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"bpf", str(target).encode(), b"bpf", 0, b"mode=0700"):
            code = ctypes.get_errno()
            raise OSError(code, f"mount a bpffs on {target}: {os.strerror(code)}")
    folder.mkdir(parents=True, exist_ok=True)
    return fresh


def unmount(folder: Path) -> bool:
    """Takes off the bpffs that `mount` put on `folder` itself; False: none is there, or in use.

    The one of the whole system, /sys/fs/bpf, stays: others may have pins in it.
    """
    if folder == BPFFS or not os.path.ismount(folder) or not is_bpffs(folder):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return not libc.umount2(str(folder).encode(), 0)


def is_bpffs(folder: Path) -> bool:
    """Does the folder lie on a bpffs?"""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(str(folder).encode(), buffer):
        return False
    return int.from_bytes(buffer.raw[:8], "little") == _BPF_FS_MAGIC


class Pins:
    """One node's folder."""

    def __init__(self, folder: Path, kept: Path | None = None) -> None:
        """`kept`: a folder for what the compiler made, which many nodes may share."""
        self.folder = folder
        self._kept = kept
        self.links = folder / "links"
        self._built: dict[str, Path] = {}
        self._entries: dict[str, int] = {}
        self.made_anew = False
        """`make` made a table. Programs that are attached still look into the old ones,
        so the new ones are to be filled before the new programs take over."""

    def map_path(self, name: str, entries: int) -> Path:
        """Where the table of this layout and size lies."""
        return self.folder / "maps" / f"{name}-{self._digest(name)}-{entries}"

    @staticmethod
    def _digest(name: str) -> str:
        table = TABLES[name]
        digests = [getattr(record, "DIGEST", "") for record in (table.key, table.leaf)]
        text = " ".join([table.kind, table.flags, *digests])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def find_map(self, name: str) -> Path | None:
        """The table of today's layout: the one that was built for, else the oldest of any size.

        Until `sweep`, newer ones are those of a start that did not get as far as attaching.
        """
        if name in self._built:
            return self._built[name]
        found = (self.folder / "maps").glob(f"{name}-{self._digest(name)}-*")
        return min(found, key=lambda path: path.stat().st_ctime_ns, default=None)

    def make(self, entries: Mapping[str, int]) -> None:
        """Sees to it that all tables are there, of these sizes. Raises OSError."""
        before = {name: self.find_map(name) for name in TABLES}
        paths = {name: self.map_path(name, entries[name]) for name in TABLES}
        for folder in (self.folder / "maps", self.folder / "programs", self.links):
            folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name, path in paths.items() if not path.exists()]
        if missing:
            self._set_aside()
        for name in missing:
            self._make_one(name, entries[name], paths[name], before[name])
        self._built, self._entries = paths, dict(entries)
        self.made_anew |= any(before[name] != path for name, path in paths.items())

    def _set_aside(self) -> None:
        """Builds for other tables of today's paths are not taken for today's.

        They stay until `sweep`, since attached ones need their pinned table of tail calls.
        """
        for folder in [*(self.folder / "programs").iterdir()]:
            if _FORMER not in folder.name:
                names = (folder.with_name(f"{folder.name}{_FORMER}{n}") for n in itertools.count())
                folder.rename(next(one for one in names if not one.exists()))

    def _make_one(self, name: str, entries: int, path: Path, old: Path | None) -> None:
        unfinished = path.with_name(f"unfinished-{name}")
        unfinished.unlink(missing_ok=True)
        table = create(name, entries)
        libbpf.pin(table, str(unfinished))
        libbpf.close(table)
        if old is not None and old.exists():  # it may have been ours, and taken away
            carry_over(name, old, unfinished)
        unfinished.rename(path)

    def place(self, text: Text, defines: Mapping[str, str]) -> Path:
        """The folder where a text's programs lie once it is compiled. `make` comes first."""
        digest = self._digest_of(self._job(text, defines))
        return self.folder / "programs" / f"{text.label}-{digest}"

    def labels(self, program: Program) -> dict[int, str]:
        """Of which text each build of it is (`Text.label`), by the kernel's id. Raises OSError."""
        found = {}
        for path in (self.folder / "programs").glob(f"*/{program.name}"):
            pinned = libbpf.open_pin(str(path))
            found[libbpf.program_id(pinned)] = path.parent.name.rpartition("-")[0]
            libbpf.close(pinned)
        return found

    def _job(self, text: Text, defines: Mapping[str, str]) -> Job:
        pins = {name: str(path) for name, path in self._built.items()}
        constants = {**defines, **dict(text.defines)}
        return Job(text.source, constants, pins, self._entries, text.programs, "")

    def compile(self, texts: Iterable[Text], defines: Mapping[str, str]) -> Building:
        """Begins to compile what is not there yet, side by side. `make` comes first."""
        folders: dict[Text, Path] = {}
        jobs: dict[Path, Job] = {}
        for text in texts:
            folder = folders[text] = self.place(text, defines)
            if all((folder / program.name).exists() for program in text.programs):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            # A compiler whose agent was killed may still be at work: it gets no folder of ours.
            unfinished = folder.with_name(f"{folder.name}-unfinished-{os.getpid()}")
            shutil.rmtree(unfinished, ignore_errors=True)
            job, kept = self._job(text, defines), str(self._kept or "")
            jobs[folder] = msgspec.structs.replace(job, folder=str(unfinished), kept=kept)
        return Building(folders, jobs)

    def build(
        self,
        source: str,
        programs: tuple[Program, ...],
        entries: Mapping[str, int],
        defines: Mapping[str, str],
    ) -> Path:
        """`make`, and one text compiled: its folder. Raises CompileError, OSError."""
        self.make(entries)
        text = Text(source, programs)
        building = self.compile([text], defines)
        building.finish()
        return building.folders[text]

    @staticmethod
    def _digest_of(job: Job) -> str:
        text = joined(job.source) + repr((sorted(job.macros().items()), job.programs))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def open_hash(self, name: str) -> KernelHash:
        """A table by key. Raises OSError if it is not there."""
        return open_hash(self.found(name))

    def open_array(self, name: str) -> KernelArray:
        """A table by index. Raises OSError if it is not there."""
        return open_array(self.found(name))

    def open_per_cpu(self, name: str) -> KernelPerCpu:
        """A table by index, one set of counters a CPU. Raises OSError if it is not there."""
        return open_per_cpu(self.found(name))

    def open_ring(self, name: str) -> Ring:
        """A ring buffer. Raises OSError if it is not there."""
        fd = libbpf.open_pin(str(self.found(name)))
        try:
            return Ring(fd)
        finally:
            libbpf.close(fd)

    def found(self, name: str) -> Path:
        """Where a table is. Raises FileNotFoundError."""
        path = self.find_map(name)
        if path is None:
            raise FileNotFoundError(2, f"no map {name} under {self.folder}")
        return path

    def sweep(self, programs: Collection[Path], entries: Mapping[str, int]) -> None:
        """Removes builds and tables that are no longer in use. Raises OSError."""
        for folder in (self.folder / "programs").iterdir():
            if folder not in programs:
                shutil.rmtree(folder)
        used = {self.map_path(name, entries[name]) for name in TABLES}
        for path in (self.folder / "maps").iterdir():
            if path not in used:
                path.unlink()

    def remove(self) -> None:
        """Takes all off: links first, so that no hook is left without its maps. Raises OSError."""
        left = self.folder.glob("trial-*")  # of an `explain` that was killed
        for folder in (self.links, self.folder / "programs", self.folder / "maps", *left):
            shutil.rmtree(folder, ignore_errors=not folder.exists())


class Building:
    """Programs that are being compiled. `folders`: where those of each text are in the end."""

    def __init__(self, folders: Mapping[Text, Path], jobs: Mapping[Path, Job]) -> None:
        self.folders = folders
        self._jobs = dict(jobs)
        self._compiling = Compiling(jobs.values()) if jobs else None
        self._lock = threading.Lock()
        self._error: Exception | None = None

    def finish(self) -> None:
        """Waits until all is there; for any thread. Raises CompileError, OSError."""
        with self._lock:
            compiling, self._compiling = self._compiling, None
            if compiling is not None:
                try:
                    compiling.wait()
                    for folder, job in self._jobs.items():
                        Path(job.folder).rename(folder)
                except (CompileError, OSError) as error:
                    self._error = error
            if self._error is not None:
                raise self._error


def carry_over(name: str, old: Path, new: Path) -> None:
    """Copies a table's entries to one of another size, as many as fit. Raises OSError."""
    table = TABLES[name]
    if table.kind == "array":
        source, target = open_array(old), open_array(new)
        target.write(0, source.read(0, min(source.capacity, target.capacity)))
    elif table.kind in ("hash", "lru_hash", "lpm_trie"):
        target_hash = open_hash(new)
        entries = dict(list(open_hash(old).items())[: target_hash.capacity])
        if entries:
            target_hash.put(entries)
