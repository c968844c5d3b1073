"""Options that several commands share, each with its help, once."""

from __future__ import annotations

from pathlib import Path

import click

from lb.config import cgroup2_root
from lb.errors import BadInput

_PATH = click.Path(path_type=Path)

API_SOCKET = click.option(
    "--api-socket",
    type=_PATH,
    default=Path("/run/tidegate/agent.sock"),
    show_default=True,
    help="Where the agent answers.",
)
BPFFS = click.option(
    "--bpffs",
    type=_PATH,
    default=Path("/sys/fs/bpf/tidegate"),
    show_default=True,
    help="Folder with the pins of maps and programs.",
)
CGROUP = click.option(
    "--cgroup",
    type=_PATH,
    default=None,
    help="Folder of the cgroup2 tree whose sockets are served.  [default: the tree's root]",
)
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
)


def default_cgroup(given: Path | None, *, required: bool) -> Path | None:
    """The folder given, else the root of the cgroup2 mount. Raises BadInput if required."""
    if given is not None:
        if required and not (given / "cgroup.procs").exists():
            raise BadInput(f"--cgroup {given}: no cgroup2 folder is there")
        return given
    try:
        return cgroup2_root(Path("/proc/self/mounts").read_text())
    except BadInput:
        if required:
            raise
        return None
