"""What was compiled once is loaded without a compiler; what cannot be trusted is compiled."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import cache, pins
from bpf.link import SOCKET_HOOKS
from bpf.module import CompileError, Compiling, Job, Text
from bpf.pins import Pins
from lb.tables import SIZES

SMALL = {name: min(size, 64) for name, size in SIZES.items()}
TEXT = Text("sock.c", SOCKET_HOOKS[:2])
DEFINES = {"HAVE_SET_RETVAL": "0"}
_MOVE = struct.pack("<BBhi", 0xB7, 1, 0, 5)


def load_64(source: int, value: int) -> bytes:
    """The instruction of two halves."""
    return struct.pack("<BBhi", 0x18, source << 4 | 1, 0, value) + struct.pack("<BBhi", 0, 0, 0, 7)


class NoCompiler(Compiling):
    """A node without one."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = list(jobs)

    def wait(self) -> None:
        """At once."""
        raise CompileError("no compiler")


def build(folder: Path, kept: Path) -> Path:
    """What an agent does at its start."""
    made = Pins(folder, kept)
    made.make(SMALL)
    building = made.compile([TEXT], DEFINES)
    building.finish()
    return building.folders[TEXT]


@given(st.lists(st.sampled_from(["move", "map", "number"]), max_size=20))
def test_only_descriptors_of_maps_are_replaced(kinds: list[str]) -> None:
    """Whatever stands around them, and back again."""
    forms = {
        "move": lambda _: _MOVE,
        "map": lambda i: load_64(1, i),
        "number": lambda i: load_64(0, i),
    }
    code = b"".join(forms[kind](i) for i, kind in enumerate(kinds))
    there = cache.numbered(code, lambda number: number + 100)
    wanted = b"".join(forms[kind](i + 100 * (kind == "map")) for i, kind in enumerate(kinds))
    assert there == wanted
    assert cache.numbered(there, lambda number: number - 100) == code


@pytest.mark.parametrize("parts", [("other", 2), ("text", 3), ("text",)])
def test_a_key_is_of_all_its_parts(
    parts: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, constants, kernel and compiler: another of any is another file."""
    here = cache.key("text", 2)
    assert cache.key("text", 2) == here != cache.key(*parts)
    with monkeypatch.context() as patch:
        patch.setattr("platform.release", lambda: "1.2.3")
        assert cache.key("text", 2) != here
    monkeypatch.setattr(cache, "compiler", lambda: "another")
    assert cache.key("text", 2) != here


@pytest.mark.bpf
def test_a_node_that_boots_compiles_nothing(
    bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pins are gone, its files are there: all programs are loaded, of tables of now."""
    kept = tmp_path / "cache"
    first = build(bpffs, kept)
    names = {path.name for path in first.iterdir()}
    Pins(bpffs).remove()
    monkeypatch.setattr(pins, "Compiling", NoCompiler)
    assert build(bpffs, kept) == first
    assert {path.name for path in first.iterdir()} == names
    Pins(bpffs).remove()
    with pytest.raises(CompileError, match="no compiler"):
        build(bpffs, tmp_path / "elsewhere")


def cut(path: Path) -> None:
    """A disk that was full."""
    path.write_bytes(path.read_bytes()[:100])


def spoil(path: Path) -> None:
    """Instructions that no verifier lets pass."""
    code = msgspec.msgpack.decode(path.read_bytes(), type=cache.Code)
    programs = dict.fromkeys(code.programs, _MOVE * 3)
    path.write_bytes(msgspec.msgpack.encode(cache.Code(programs, code.tables)))


def strange(path: Path) -> None:
    """Tables that this version does not have."""
    code = msgspec.msgpack.decode(path.read_bytes(), type=cache.Code)
    path.write_bytes(msgspec.msgpack.encode(cache.Code(code.programs, ["nothing"])))


def open_up(path: Path) -> None:
    """Anybody may have written it."""
    path.chmod(0o666)


@pytest.mark.bpf
@pytest.mark.parametrize("harm", [cut, spoil, strange, open_up])
def test_what_cannot_be_used_is_compiled(
    bpffs: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Without a fault, and the file is good again afterwards."""
    kept = tmp_path / "cache"
    first = build(bpffs, kept)
    (path,) = kept.iterdir()
    good = path.read_bytes()
    harm(path)
    Pins(bpffs).remove()
    assert build(bpffs, kept) == first
    assert len(list(first.iterdir())) == len(TEXT.programs)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (good, 0o600)


def test_old_files_go(tmp_path: Path) -> None:
    """As many stay as a few versions need."""
    for number in range(cache.KEPT + 5):
        cache.write(tmp_path, f"{number}", cache.Code({}, []))
    assert len(list(tmp_path.iterdir())) == cache.KEPT
    assert cache.read(tmp_path, f"{cache.KEPT + 4}") == cache.Code({}, [])


def test_a_folder_that_cannot_be_had_keeps_nothing(tmp_path: Path) -> None:
    """And harms nobody."""
    (tmp_path / "file").write_text("")
    cache.write(tmp_path / "file" / "cache", "x", cache.Code({}, []))
    assert cache.read(tmp_path / "file" / "cache", "x") is None
    assert cache.read(None, "x") is None
