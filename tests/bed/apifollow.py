"""Lets the stand-in API server hold what a directory of manifests holds, and follow it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from tests.bed.apiserver import ApiServer

_Loader = yaml.CSafeLoader


def follow(server: ApiServer, directory: Path) -> None:
    """Let the server hold what the manifests of a directory hold, for ever."""
    known: dict[Path, tuple[int, int, int]] = {}
    while True:
        # By their stat: to read them all over and over would take the time of who is measured.
        found = {path: _signature(path) for path in sorted(directory.glob("[!.]*"))}
        if found != known:
            known = found
            texts = {path.name: path.read_text() for path in known}
            documents = [
                one
                for name, text in texts.items()
                for one in (
                    [json.loads(text)] if name.endswith(".json") else yaml.load_all(text, _Loader)
                )
            ]
            wanted = [one for found in documents for one in found.get("items", [found])]
            server.store.become(wanted)
        time.sleep(0.02)


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
