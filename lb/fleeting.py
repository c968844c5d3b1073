"""Does a mount of ours outlive us? One that a container makes for itself does not.

Not for mounting (`bpf.pins`). Namespaces and shared subtrees: mount_namespaces(7); the form of
mountinfo: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")


def goes_with_us(
    folder: Path, environment: Mapping[str, str] = os.environ, proc: Path = _PROC
) -> bool:
    """Is what `folder` lies on seen in a container's mount namespace only? Raises OSError."""
    if is_shared((proc / "self/mountinfo").read_text(), folder):
        return False
    return "KUBERNETES_SERVICE_HOST" in environment or _is_contained(proc)


def _is_contained(proc: Path) -> bool:
    """Has the machine's first process another mount namespace? Unknown counts as no."""
    try:
        return (proc / "self/ns/mnt").readlink() != (proc / "1/ns/mnt").readlink()
    except OSError:
        return False


def is_shared(mountinfo: str, folder: Path) -> bool:
    """Does the mount that `folder` lies on belong to a peer group? Pure."""
    found = (Path("/"), False)
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        at, options = Path(fields[4]), fields[6 : fields.index("-")]
        # Of mounts on one place, the last one is on top.
        if folder.is_relative_to(at) and len(at.parts) >= len(found[0].parts):
            found = at, any(one.startswith("shared:") for one in options)
    return found[1]
