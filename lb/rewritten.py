"""Notices that a file was written or renamed while the agent runs, which is its end.

kube-proxy ends so that its supervisor starts it anew with what the file says now. Not for
manifests, which act at once (`lb.sources.files`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from inotify_simple import INotify, flags

from lb.errors import BadInput, TidegateError


def end_when_rewritten(path: Path, end: Callable[[TidegateError], None]) -> None:
    """Calls `end` once, from a thread of its own. Raises BadInput if it cannot watch."""
    watch = INotify()
    try:
        watch.add_watch(path, flags.CLOSE_WRITE | flags.MODIFY | flags.MOVE_SELF)
    except OSError as error:
        raise BadInput(f"--config {path}: {error.strerror}") from error

    def wait() -> None:
        with watch:
            watch.read()
        end(BadInput(f"--config {path}: was changed: the next start takes what it says now"))

    threading.Thread(target=wait, name="configuration", daemon=True).start()
