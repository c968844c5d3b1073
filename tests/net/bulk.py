"""Megabytes there and back, which have to come whole."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from tests.bed import Host

SIZE = 20 << 20


def make(path: Path) -> Path:
    """A file of SIZE bytes that no two parts of are alike."""
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_and_fro(client: Host, base: str, sent: Path) -> None:
    """PUT the file and GET it again; fails unless it came back whole."""
    got = sent.with_name("got")
    got.unlink(missing_ok=True)
    quiet = ("curl", "-q", "--noproxy", "*", "--globoff", "--silent", "--fail", "--max-time", "9")
    client.run(*quiet, "--upload-file", str(sent), f"{base}files/{got.name}", timeout=12)
    client.run(*quiet, "--output", str(got), f"{base}files/{got.name}", timeout=12)
    assert digest(got) == digest(sent)
