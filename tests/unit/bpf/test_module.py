"""What compiler and verifier say becomes one line; a stale layout never becomes a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bpf.layout import TABLES
from bpf.link import SOCKET_HOOKS
from bpf.module import CompileError, Job, Program, compile_and_pin, condensed
from bpf.pins import Pins
from lb.tables import SIZES

SMALL = {name: min(size, 64) for name, size in SIZES.items()}
RECVMSG = SOCKET_HOOKS[0]

COMPILER = """
bpf/reason.h:34:6: warning: something
bpf/reason.h:34:6: error: use of undeclared identifier 'X'
        if (X)
            ^
1 error generated.
sock.c: Failed to compile BPF module <text>
"""
VERIFIER = """
424: (18) r1 = 0xffffff91             ; R1=0xffffff91
425: (85) call bpf_set_retval#187
program of this type cannot use helper bpf_set_retval#187
processed 118 insns (limit 1000000) max_states_per_insn 0 total_states 10

sock.c: Failed to load BPF program b'connect4': Invalid argument
"""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (COMPILER, "bpf/reason.h:34:6: error: use of undeclared identifier 'X'"),
        (
            VERIFIER,
            (
                "sock.c: Failed to load BPF program b'connect4': Invalid argument: "
                "program of this type cannot use helper bpf_set_retval#187"
            ),
        ),
        (
            "Traceback\nModuleNotFoundError: No module named 'bcc'\n",
            "ModuleNotFoundError: No module named 'bcc'",
        ),
        ("", ""),
    ],
    ids=["compiler", "verifier", "traceback", "silence"],
)
def test_a_refusal_is_one_line(said: str, line: str) -> None:
    """Where and what of the compiler, the reason of the verifier; else the last line."""
    assert condensed(said) == line


def job(folder: Path, program: Program, **defines: str) -> Job:
    """A small one."""
    pins = {name: str(Pins(folder).map_path(name, SMALL[name])) for name in TABLES}
    Pins(folder).make(SMALL)
    return Job("sock.c", defines, pins, SMALL, (program,), str(folder / "programs" / "x"))


@pytest.mark.bpf
def test_a_compile_error_names_file_and_line(bpffs: Path) -> None:
    """Of our own file, not of the joined text."""
    with pytest.raises(CompileError, match=r"^bpf/reason\.h:\d+:\d+: error: .*HAVE_SET_RETVAL"):
        compile_and_pin(job(bpffs, RECVMSG))


@pytest.mark.bpf
def test_a_verifiers_refusal_names_its_reason(bpffs: Path) -> None:
    """connect4 loaded for recvmsg4 may not choose an errno."""
    wrong = Program("connect4", RECVMSG.kind, RECVMSG.attach_type)
    with pytest.raises(CompileError, match=r"connect4.*: .*bpf_set_retval") as caught:
        compile_and_pin(job(bpffs, wrong, HAVE_SET_RETVAL="1"))
    assert "\n" not in str(caught.value)


STALE = """
import sys
from bpf import layout, module
fields = layout.Backend.FIELDS
layout.Backend.FIELDS = (*fields[:-1], fields[-1]._replace(offset=fields[-1].offset + 2))
sys.exit(module.main())
"""


@pytest.mark.bpf
def test_a_stale_layout_is_caught(bpffs: Path) -> None:
    """An install whose layout.py is not that of its C names table, field and what to do."""
    done = subprocess.run(
        [sys.executable, "-c", STALE],
        input=msgspec.json.encode([job(bpffs, RECVMSG, HAVE_SET_RETVAL="1")]),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "table backends: field zone lies at 30" in condensed(done.stderr.decode())
    assert not (bpffs / "programs" / "x").exists()
