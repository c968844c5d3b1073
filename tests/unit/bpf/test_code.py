"""What was compiled once is loaded with any node's tables, and is taken from nobody else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.code import Code, Codes, digest, keep, kept, load, portable
from bpf.module import TAILS, CompileError, Text
from bpf.pins import Pins
from bpf.texts import LB, SOCK
from lb.tables import SIZES

SMALL = {name: min(size, 64) for name, size in SIZES.items()}
DEFINES = {"HAVE_SET_RETVAL": "0"}
PLAIN = bytes([0xB7, 0, 0, 0, 1, 0, 0, 0])  # r0 = 1


def of_map(descriptor: int) -> bytes:
    """r1 = the map, in both halves of its instruction."""
    return bytes([0x18, 0x11, 0, 0]) + descriptor.to_bytes(4, "little") + bytes(8)


@given(st.lists(st.none() | st.sampled_from([3, 7, 1000]), max_size=20))
def test_descriptors_become_names_and_only_those(parts: list[int | None]) -> None:
    """Each place is told by number and name; all other bytes stay."""
    names = {3: "flows", 7: "frontends", 1000: "node"}
    raw = b"".join(PLAIN if one is None else of_map(one) for one in parts)
    code = portable(raw, names)
    made = bytearray(code.instructions)
    for number, name in code.tables:
        descriptor = next(one for one, known in names.items() if known == name)
        made[8 * number + 4 : 8 * number + 8] = descriptor.to_bytes(4, "little")
    assert bytes(made) == raw
    assert len(code.tables) == sum(one is not None for one in parts)


def test_the_key_is_of_text_and_constants_but_not_of_pins() -> None:
    """Nodes that differ in their folders alone share what the compiler made."""
    one = digest("lb.c", {"MAX_flows": "1", "PIN_flows": "/a"})
    assert one == digest("lb.c", {"PIN_flows": "/b", "MAX_flows": "1"})
    assert one != digest("lb.c", {"MAX_flows": "2", "PIN_flows": "/a"})
    assert one != digest("sock.c", {"MAX_flows": "1", "PIN_flows": "/a"})


CODES: Codes = {"lb_in": Code(PLAIN, ((0, "flows"),))}


def test_kept_and_found(tmp_path: Path) -> None:
    """Under its key, in a folder that is made for it; nothing else lies there."""
    folder = tmp_path / "new" / "programs"
    assert kept(folder, "k") is None
    keep(folder, "k", CODES)
    assert kept(folder, "k") == CODES
    assert [one.name for one in folder.iterdir()] == ["k"]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_may_write_is_not_taken(tmp_path: Path, what: str) -> None:
    """Root would run anybody's program in the kernel."""
    folder = tmp_path / "programs"
    keep(folder, "k", CODES)
    (folder if what == "folder" else folder / "k").chmod(0o777)
    assert kept(folder, "k") is None


@pytest.mark.parametrize("text", [b"", b"spoilt", b"\x81\xa1a"])
def test_what_is_spoilt_is_not_taken(tmp_path: Path, text: bytes) -> None:
    """It is compiled again."""
    folder = tmp_path / "programs"
    keep(folder, "k", CODES)
    (folder / "k").write_bytes(text)
    assert kept(folder, "k") is None


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    """A file in the folder's place is left as it is."""
    (tmp_path / "programs").write_text("")
    keep(tmp_path / "programs", "k", CODES)
    assert kept(tmp_path / "programs", "k") is None


@pytest.mark.bpf
def test_the_second_node_needs_no_compiler(
    bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the compiler out of reach, programs come up from what another node compiled."""
    folder = tmp_path / "programs"
    for name in ("first", "second"):
        pins = Pins(bpffs / name, folder)
        pins.make(SMALL)
        building = pins.compile([LB], DEFINES)
        building.finish()
        there = {one.name for one in building.folders[LB].iterdir()}
        assert there == {TAILS, *(program.name for program in LB.programs)}
        (tmp_path / "bcc.py").write_text("raise ImportError('no bcc here')\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    pins = Pins(bpffs / "third", tmp_path / "empty")
    pins.make(SMALL)
    with pytest.raises(CompileError, match="no bcc here"):
        pins.compile([LB], DEFINES).finish()
    for name in ("first", "second", "third"):
        shutil.rmtree(bpffs / name)


@pytest.mark.bpf
@pytest.mark.parametrize("table", ["frontends", "no such table"])
def test_what_cannot_be_loaded_is_compiled(bpffs: Path, tmp_path: Path, table: str) -> None:
    """Instructions that no verifier lets pass, or a table of another version, cost no start."""
    folder, text = tmp_path / "programs", Text("sock.c", SOCK.programs[:1])
    pins = Pins(bpffs, folder)
    pins.make(SMALL)
    pins.compile([text], DEFINES).finish()
    (path,) = folder.iterdir()
    good = kept(folder, path.name)
    keep(folder, path.name, {SOCK.programs[0].name: Code(PLAIN + of_map(0), ((1, table),))})
    pins.remove()
    pins.make(SMALL)
    building = pins.compile([text], DEFINES)
    building.finish()
    assert [one.name for one in building.folders[text].iterdir()] == [SOCK.programs[0].name]
    assert kept(folder, path.name) == good


@pytest.mark.bpf
def test_a_refused_program_says_why(bpffs: Path) -> None:
    """The verifier's words are in the note."""
    del bpffs  # for the skip without bcc or root
    with pytest.raises(OSError, match="load bad") as caught:
        load("bad", 3, -1, Code(PLAIN, ()), lambda _: 0)
    assert caught.value.__notes__[0].strip()
