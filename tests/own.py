"""A folder of one's own on the bpffs, or the reason why there can be none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from bpf.pins import BPFFS, mount


def unable() -> str:
    """Why programs cannot be loaded here; empty: they can."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if find_spec("bcc") is not None else "needs bcc (python3-bpfcc)"


@contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """It goes at the end, with all that is pinned in it. `name`: who it is for. Raises OSError."""
    mount(BPFFS)
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{name}-", dir=BPFFS))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
