"""The cgroups of pods, by the names that the kubelet gives them.

(kubelet, pkg/kubelet/cm/pod_container_manager_linux.go.) Not for containers: theirs lie below.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

DEPTH = 6
"""Folders between the root and a pod: a --cgroup-root, kubepods, its class of service."""


def find(root: Path, uids: Collection[str]) -> dict[str, int]:
    """The id of each pod's cgroup that is below `root`: the inode of its folder."""
    wanted = {name: uid for uid in uids if uid for name in names(uid)}
    found: dict[str, int] = {}
    if wanted:
        _search(root, wanted, DEPTH, found)
    return found


def names(uid: str) -> tuple[str, str]:
    """Ends of the folder's name, as the drivers cgroupfs and systemd have it."""
    return f"pod{uid}", f"pod{uid.replace('-', '_')}.slice"


def _search(folder: Path, wanted: dict[str, str], depth: int, found: dict[str, int]) -> None:
    try:
        entries = [one for one in os.scandir(folder) if one.is_dir(follow_symlinks=False)]
    except OSError:
        return  # it has just gone
    for one in entries:
        uid = wanted.get(one.name[one.name.rfind("pod") :])
        if uid is not None:
            found[uid] = one.inode()
        elif depth:
            _search(Path(one.path), wanted, depth - 1, found)
