"""Headers stand alone, guarded by their own names; the ABI compiles on the host, too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BPF = Path(__file__).parents[2] / "bpf"
HEADERS = sorted(path.name for path in BPF.glob("*.h"))


@pytest.mark.parametrize("name", HEADERS)
def test_the_guard_is_the_files_name(name: str) -> None:
    """types.h is TIDEGATE_TYPES_H, all of it inside."""
    guard = f"TIDEGATE_{name.upper().replace('.', '_')}"
    code = re.sub(r"/\*.*?\*/", "", (BPF / name).read_text(), flags=re.DOTALL).strip()
    assert code.startswith(f"#ifndef {guard}\n#define {guard}\n")
    assert code.endswith("#endif")


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_opens_with_its_contract(name: str) -> None:
    """Its name and what it is for, before any code."""
    second = (BPF / name).read_text().splitlines()[1]
    assert re.match(rf"/\* {re.escape(name)} - \w", second)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_includes_what_it_uses_of_ours(name: str) -> None:
    """Whoever uses a struct or table of ours includes types.h or maps.h, be it by another."""
    seen: set[str] = set()

    def follow(header: str) -> None:
        for other in re.findall(r'^#include "([\w.]+)"', (BPF / header).read_text(), re.MULTILINE):
            if other not in seen:
                seen.add(other)
                follow(other)

    follow(name)
    if name != "types.h":
        assert "types.h" in seen


def test_the_abi_compiles_on_the_host() -> None:
    """types.h needs nothing but linux/types.h, and warns of nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs gcc")
    command = [compiler, "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-x", "c"]
    subprocess.run([*command, str(BPF / "types.h")], check=True)


def test_differences_of_sums_have_all_their_bits() -> None:
    """The one of bcc is an int: before Linux 6.13 half of all sums would look like errors."""
    users = [path.name for path in BPF.glob("*.[ch]") if "bpf_csum_diff(" in path.read_text()]
    assert users == []
