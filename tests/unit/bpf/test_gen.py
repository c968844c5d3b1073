"""The generator: prefixes of enums, refused holes, and layouts read from a compiler's BTF."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bpf import gen
from bpf.btf import Member, Struct, Types, read, section


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["SCOPE_ADDRESS", "SCOPE_NODE"], "SCOPE_"),
        (["FRONTEND_NODE_PORT", "FRONTEND_NO"], "FRONTEND_"),
        (["REASON_NO", "REASON_NO_MEMORY"], "REASON_"),
        (["LINE_SLOTS"], "LINE_"),
        (["PEERS"], ""),
        (["A_ONE", "B_TWO"], ""),
        (["ABC_X", "ABD_X"], ""),
    ],
)
def test_prefix(names: list[str], prefix: str) -> None:
    """What all names have in front up to an underscore goes; never a whole name."""
    assert gen._prefix(names) == prefix


def of(*members: Member, size: int) -> Types:
    """One struct."""
    return Types({"thing": Struct("thing", size, members)}, {})


A, B = Member("a", "__u32", 0, 4), Member("b", "__u64", 8, 8)


@pytest.mark.parametrize(
    ("types", "where"),
    [(of(A, B, size=16), "before b"), (of(A, size=8), "at the end")],
    ids=["inside", "at the end"],
)
def test_holes_are_refused(types: Types, where: str) -> None:
    """Hidden bytes are part of a hash key: they have to have a name."""
    with pytest.raises(SystemExit, match=where):
        gen.generated(types)


def test_a_named_hole_is_zero_and_no_field() -> None:
    """`pad` vanishes from the record and is always zero in memory."""
    text = gen.generated(of(A, Member("pad", "__u32", 4, 4), size=8))
    assert 'Struct("<I4x")' in text
    assert "pad" not in text.rpartition("class Thing")[2]


def test_a_digest_follows_the_layout() -> None:
    """Another order, type or size of fields is another digest."""
    thing = of(A, size=4).structs["thing"]
    other = of(Member("a", "__be32", 0, 4), size=4).structs["thing"]
    assert gen._digest(thing) != gen._digest(other)


SOURCE = """
typedef unsigned char __u8; typedef unsigned int __u32; typedef unsigned long long __u64;
enum colour { COLOUR_RED = 1, COLOUR_NONE = -1 };
struct inner { __u32 x; };
struct outer { __u8 raw[8]; struct inner list[2]; const volatile __u64 word; __u32 last; };
struct outer probe; enum colour probe_colour;
"""


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An object file of the source above."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("needs clang")
    target: Path = tmp_path_factory.mktemp("elf") / "probe.o"
    command = [clang, "-g", "-O2", "-target", "bpf", "-x", "c", "-c", "-", "-o", str(target)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return target.read_bytes()


def test_btf_says_where_fields_lie(elf: bytes) -> None:
    """Arrays, nested structs, qualifiers and negative values."""
    types = read(elf)
    outer = types.structs["outer"]
    assert [(m.name, m.offset, m.size, m.count) for m in outer.members] == [
        ("raw", 0, 8, 8),
        ("list", 8, 8, 2),
        ("word", 16, 8, 0),
        ("last", 24, 4, 0),
    ]
    assert outer.size == 32
    assert types.enums["colour"] == {"COLOUR_RED": 1, "COLOUR_NONE": -1}


def test_a_file_without_the_section_is_said(elf: bytes) -> None:
    """KeyError, not junk."""
    with pytest.raises(KeyError):
        section(elf, ".nothing")
