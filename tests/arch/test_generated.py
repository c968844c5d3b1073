"""layout.py is what types.h says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_layout_is_current() -> None:
    """`python -m bpf.gen --check` agrees."""
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    command = [sys.executable, "-m", "bpf.gen", "--check"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
