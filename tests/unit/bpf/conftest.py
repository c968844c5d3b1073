"""A folder on bpffs, and a cgroup, of a test's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bpf.pins import BPFFS, Pins, mount
from tests.bed import cgroup


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """Removed with all pins in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if find_spec("bcc") is None:
        pytest.skip("needs bcc (python3-bpfcc)")
    mount(BPFFS)
    folder = Path(tempfile.mkdtemp(prefix="tidegate-test-", dir=BPFFS))
    yield folder
    Pins(folder).remove()
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """An empty one."""
    root = cgroup.mount_point()
    if os.geteuid() != 0 or root is None:
        pytest.skip("needs root and cgroup v2")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-test-", dir=root))
    yield folder
    if folder.exists():
        folder.rmdir()
