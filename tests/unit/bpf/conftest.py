"""A folder on bpffs, and a cgroup, of a test's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import cgroup
from tests.own import own_folder, unable


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """Removed with all pins in it."""
    if reason := unable():
        pytest.skip(reason)
    with own_folder("test") as folder:
        yield folder


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
