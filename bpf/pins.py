"""The folder on a bpffs that holds a node's data path: maps, programs, links.

    DIR/maps/NAME-DIGEST-ENTRIES   one file a table; the digest is that of its layout
    DIR/programs/DIGEST/NAME       one folder a build: text and constants make the digest
    DIR/links/NAME                 what is attached

A table whose layout or size changed gets a new file beside the old one; entries of the same
layout are carried over before a program sees it, and `sweep` removes what nothing uses.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from bpf.layout import TABLES
from bpf.maps import KernelArray, KernelHash, open_array, open_hash
from bpf.module import Job, Program, compile_and_pin
from bpf.source import joined

BPFFS = Path("/sys/fs/bpf")
_BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h


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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links = folder / "links"
        self._built: dict[str, Path] = {}
        self.made_anew = False
        """A build made a table. Programs that are attached still look into the old ones,
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

    def place(
        self,
        source: str,
        programs: tuple[Program, ...],
        entries: Mapping[str, int],
        defines: Mapping[str, str],
    ) -> Path:
        """The folder where `build` puts the same programs; it need not be there."""
        pins = {name: str(self.map_path(name, entries[name])) for name in TABLES}
        job = Job(source, dict(defines), pins, dict(entries), programs, "")
        return self.folder / "programs" / self._digest_of(job)

    def build(
        self,
        source: str,
        programs: tuple[Program, ...],
        entries: Mapping[str, int],
        defines: Mapping[str, str],
    ) -> Path:
        """The folder with the programs, compiled only if they are not there yet.

        Raises CompileError, OSError.
        """
        before = {name: self.find_map(name) for name in TABLES}
        pins = {name: str(self.map_path(name, entries[name])) for name in TABLES}
        for folder in (self.folder / "maps", self.folder / "programs", self.links):
            folder.mkdir(parents=True, exist_ok=True)
        folder = self.place(source, programs, entries, defines)
        complete = all((folder / program.name).exists() for program in programs)
        self._built = {name: Path(path) for name, path in pins.items()}
        self.made_anew |= any(before[name] != path for name, path in self._built.items())
        if complete and all(path.exists() for path in self._built.values()):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        unfinished = self.folder / "programs" / f"{folder.name}-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        compile_and_pin(Job(source, dict(defines), pins, dict(entries), programs, str(unfinished)))
        for name, old in before.items():
            if old is not None and old != self._built[name]:
                carry_over(name, old, self._built[name])
        unfinished.rename(folder)
        return folder

    @staticmethod
    def _digest_of(job: Job) -> str:
        text = joined(job.source) + repr(sorted(job.macros().items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def open_hash(self, name: str) -> KernelHash:
        """A table by key. Raises OSError if it is not there."""
        return open_hash(self._found(name))

    def open_array(self, name: str) -> KernelArray:
        """A table by index. Raises OSError if it is not there."""
        return open_array(self._found(name))

    def _found(self, name: str) -> Path:
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
        for folder in (self.links, self.folder / "programs", self.folder / "maps"):
            shutil.rmtree(folder, ignore_errors=not folder.exists())


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
