"""A node's folder: compiled once, carried over to other sizes, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from bpf import libbpf, pins
from bpf.layout import TABLES, FrontendKey, Service
from bpf.link import SOCKET_HOOKS
from bpf.module import CompileError, Compiling, Job, Program, Text
from bpf.pins import Pins, mount, unmount
from lb.tables import SIZES

pytestmark = pytest.mark.bpf

SMALL = {name: min(size, 64) for name, size in SIZES.items()}
LARGE = SMALL | {"services": 128, "frontends": 128, "ranges": 128}
PROGRAMS = SOCKET_HOOKS[:1]
KEY = FrontendKey(bytes(16), 80, 6, 0).pack()


def build(folder: Path, sizes: dict[str, int] = SMALL) -> tuple[Pins, Path]:
    """What an agent does at its start."""
    made = Pins(folder)
    return made, made.build("sock.c", PROGRAMS, sizes, {"HAVE_SET_RETVAL": "0"})


def fill(made: Pins) -> None:
    """A frontend and a service."""
    made.open_hash("frontends").put({KEY: bytes(8)})
    made.open_array("services").write(7, b"s" * Service.SIZE)


def is_filled(made: Pins) -> bool:
    """Both are there."""
    service = made.open_array("services").read(7)
    return (
        dict(made.open_hash("frontends").items()) == {KEY: bytes(8)}
        and service == b"s" * Service.SIZE
    )


def maps(folder: Path) -> list[str]:
    """The tables that are pinned."""
    return sorted(path.name for path in (folder / "maps").iterdir())


class Killed(Compiling):
    """The compiler dies before anything is there."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = list(jobs)

    def wait(self) -> None:
        """At once."""
        raise CompileError("killed")


class KilledLate(Killed):
    """All is pinned, and then the agent dies."""

    def wait(self) -> None:
        """After the work."""
        Compiling(self.jobs).wait()
        raise CompileError("killed")


def test_a_second_build_compiles_nothing(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text and constants are the same programs, over a restart."""
    _, first = build(bpffs)
    monkeypatch.setattr(pins, "Compiling", Killed)
    _, second = build(bpffs)
    assert first == second
    assert {path.name for path in first.iterdir()} == {program.name for program in PROGRAMS}


def test_another_size_carries_entries_over(bpffs: Path) -> None:
    """Hashes and arrays keep what they hold; the old tables go when swept."""
    before, _ = build(bpffs)
    fill(before)
    after, programs = build(bpffs, LARGE)
    assert is_filled(after)
    assert after.open_array("services").capacity == 128
    assert len(maps(bpffs)) == len(TABLES) + 3
    after.sweep([programs], LARGE)
    assert maps(bpffs) == sorted(after.map_path(name, LARGE[name]).name for name in TABLES)
    assert list((bpffs / "programs").iterdir()) == [programs]
    assert is_filled(Pins(bpffs))


@pytest.mark.parametrize("death", [Killed, KilledLate])
def test_a_build_that_was_killed_loses_nothing(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch, death: type[Compiling]
) -> None:
    """The next one carries over what the killed one did not, and no half program is ever found."""
    before, _ = build(bpffs)
    fill(before)
    with monkeypatch.context() as patch:
        patch.setattr(pins, "Compiling", death)
        with pytest.raises(CompileError):
            build(bpffs, LARGE)
    assert is_filled(Pins(bpffs))
    after, programs = build(bpffs, LARGE)
    assert is_filled(after)
    after.sweep([programs], LARGE)
    assert [path.name for path in (bpffs / "programs").iterdir()] == [programs.name]


def test_texts_are_compiled_side_by_side(bpffs: Path) -> None:
    """Each has a folder of its own, known before; one that fails is told, and leaves nothing."""
    made = Pins(bpffs)
    made.make(SMALL)
    defines = {"HAVE_SET_RETVAL": "0"}
    good, other = Text("sock.c", PROGRAMS), Text("sock.c", PROGRAMS, (("OTHER", "1"),))
    building = made.compile([good, other], defines)
    building.finish()
    assert building.folders[good] != building.folders[other]
    for text in (good, other):
        assert (building.folders[text] / PROGRAMS[0].name).exists()
    wrong = Text("sock.c", (Program("nothing", 18, 10),))
    building = made.compile([good, wrong], defines)
    for _ in range(2):
        with pytest.raises(CompileError, match=r"sock\.c: Unknown program .*nothing"):
            building.finish()
    assert not building.folders[wrong].exists()


def test_a_table_that_was_unpinned_is_no_programs_table(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built for the lost one is never taken for the new one's, whoever dies meanwhile."""
    before, programs = build(bpffs)
    before.map_path("frontends", SMALL["frontends"]).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(pins, "Compiling", Killed)
        with pytest.raises(CompileError):
            build(bpffs)
    assert not programs.exists()
    after, _ = build(bpffs)
    assert programs.exists()
    assert after.open_hash("frontends").capacity == 64


def test_going_back_after_a_build_that_never_attached(bpffs: Path) -> None:
    """The agent opens the tables of its own programs, not the newest ones that lie about."""
    before, _ = build(bpffs)
    fill(before)
    build(bpffs, LARGE)
    again, programs = build(bpffs)
    assert again.open_array("services").capacity == 64
    assert is_filled(again)
    again.sweep([programs], SMALL)
    assert is_filled(Pins(bpffs))


def numbers(paths: Iterable[Path]) -> set[int]:
    """The kernel's ids of what is pinned there."""
    found = set()
    for path in paths:
        descriptor = libbpf.open_pin(str(path))
        found.add(libbpf.object_id(descriptor))
        libbpf.close(descriptor)
    return found


def test_attached_programs_keep_their_tail_calls(bpffs: Path) -> None:
    """Those for tables of another size stay pinned until swept, also over starts that failed."""
    _, before = build(bpffs)
    attached = numbers(before.iterdir())
    for entries in (LARGE, SMALL | {"services": 96}, SMALL | {"services": 80}):
        after, programs = build(bpffs, entries)
        assert attached <= numbers((bpffs / "programs").glob("*/*"))
    after.sweep([programs], SMALL | {"services": 80})
    assert list((bpffs / "programs").iterdir()) == [programs]


def test_smaller_tables_take_what_fits(bpffs: Path) -> None:
    """What is beyond the new end is left out; the rest is there."""
    before, _ = build(bpffs, LARGE)
    before.open_array("services").write(100, b"x" * Service.SIZE)
    fill(before)
    after, _ = build(bpffs)
    assert is_filled(after)


def test_remove_leaves_nothing(bpffs: Path) -> None:
    """Twice is as good as once."""
    made, _ = build(bpffs)
    made.remove()
    made.remove()
    assert list(bpffs.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        made.open_hash("frontends")


def test_a_bpffs_of_its_own_comes_and_goes(tmp_path: Path) -> None:
    """Where no bpffs is, one is mounted on the folder itself, and taken off again."""
    folder = tmp_path / "pins"
    assert mount(folder)
    try:
        assert not mount(folder)
        assert os.path.ismount(folder)
        assert not unmount(tmp_path)
    finally:
        assert unmount(folder)
    assert not os.path.ismount(folder)
    assert not unmount(folder)
