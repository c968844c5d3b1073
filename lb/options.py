"""Options that several commands share, each with its help, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lb.config import cgroup2_root
from lb.errors import BadInput
from lb.kubeproxy.flags import DEPRECATED, FLAGS, GONE, HELP, LOGGING, Flag, Kind

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
PROGRAM_CACHE = click.option(
    "--program-cache",
    default="/var/cache/tidegate",
    show_default=True,
    help="Folder for what the compiler made, so that the next start is quick; empty: none.",
)

_TYPES = {Kind.BOOL: click.BOOL, Kind.INT: click.INT, Kind.NUMBER: click.FLOAT}


def kube_proxy_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of kube-proxy's flags that stand for a field of its configuration; None: not given."""
    for flag in reversed((*FLAGS, *LOGGING)):
        function = _option(flag)(function)
    for name in DEPRECATED:
        function = click.option(f"--{name}", type=click.INT, hidden=True)(function)
    for name in GONE:
        function = optional_value(f"--{name}", hidden=True)(function)
    return function


def optional_value(*names: str, **about: Any) -> Callable[..., Any]:
    """A flag that may stand alone, as `--cleanup` or as `--cleanup=true`."""
    return click.option(*names, is_flag=False, flag_value="true", **about)


HOST_PORTS = optional_value(
    "--host-ports",
    type=bool,
    default=None,
    help="Serve the hostPorts of this node's pods, in place of the CNI's portmap plugin; "
    "--no-host-ports: do not.  [default: with --manifests, where nobody else could]",
)


def _option(flag: Flag) -> Callable[..., Any]:
    names = ["-v", "--v", "--verbosity"] if flag.name == "v" else [f"--{flag.name}"]
    about: dict[str, Any] = {
        "type": _TYPES.get(flag.kind, click.STRING),
        "metavar": flag.kind.value,
        "help": HELP.get(flag.name),
        "hidden": flag.name not in HELP,
        "multiple": flag.kind is Kind.LIST,
    }
    make = optional_value if flag.kind is Kind.BOOL else click.option
    return make(flag.name.replace("-", "_"), *names, **about)


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


_BANDWIDTH = (
    click.option(
        "--bandwidth",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Pod bandwidth limits; on: do not start where the kernel has no fq.",
    ),
    click.option(
        "--bandwidth-scope",
        type=click.Choice(["node", "all"]),
        default="node",
        show_default=True,
        help="What egress limits hold for: what leaves the node, or also what goes to its own "
        "pods.",
    ),
    click.option(
        "--pod-bbr",
        type=click.Choice(["on", "off"]),
        default="off",
        show_default=True,
        help="BBR for the TCP connections of pods that begin from now on.",
    ),
)


def bandwidth_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of pods' bandwidth."""
    for option in reversed(_BANDWIDTH):
        command = option(command)
    return command
