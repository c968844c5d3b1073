"""The command line: reads arguments, calls, prints. No decisions.

Exit status of every command: 0 good, 1 the answer is no, 2 could not find out or wrong usage.
An error is one line on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lb import __version__
from lb.agent_command import agent
from lb.answering import answers as _answers
from lb.answering import print_json as _json
from lb.options import API_SOCKET, BPFFS, CGROUP, OUTPUT, default_cgroup
from lb.reading import KUBE_PROXY
from lb.see.commands import COMMANDS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tidegate")
def tidegate() -> None:
    """A Kubernetes service load balancer that lives in the kernel."""


for command in (agent, *COMMANDS):
    tidegate.add_command(command)


@tidegate.command()
@API_SOCKET
@BPFFS
@OUTPUT
@_answers
def status(api_socket: Path, bpffs: Path, output: str) -> int:  # noqa: ARG001 - for symmetry
    """Is the data path what the cluster asks for? Exit 1 if it is not."""
    from lb.client import ask  # noqa: PLC0415
    from lb.words import status_text  # noqa: PLC0415

    answer = ask(api_socket, "/status")
    if output == "json":
        _json(answer)
    else:
        click.echo(status_text(answer))
    return 0 if answer["healthy"] else 1


@tidegate.command()
@CGROUP
@BPFFS
@API_SOCKET
@OUTPUT
@_answers
def check(cgroup: Path | None, bpffs: Path, api_socket: Path, output: str) -> int:  # noqa: ARG001
    """Can this node run it? Lists each kernel feature: yes, no, unknown; exit 1 if one is not."""
    from lb.check import report  # noqa: PLC0415
    from lb.text import table  # noqa: PLC0415

    answer = report(default_cgroup(cgroup, required=False))
    if output == "json":
        _json(answer)
    else:
        click.echo(f"kernel {answer['kernel']}")
        columns = {"name": "FEATURE", "there": "THERE", "since": "SINCE", "without": "WITHOUT IT"}
        table(answer["features"], columns)
        click.echo(f"memory for the tables when full: {answer['memory_bytes'] / 1e6:.0f} MB")
    return 0 if answer["good"] else 1


SHOWN = {
    "services": {
        "service": "SERVICE", "type": "TYPE", "frontend": "FRONTEND", "backend": "BACKENDS",
        "state": "STATE", "connections_total": "CONNECTIONS", "packets": "PACKETS",
        "bytes": "BYTES", "refusals": "REFUSED",
    },
    "backends": {
        "service": "SERVICE", "backend": "BACKEND", "state": "STATE",
        "takes_new_connections": "NEW", "connections": "OPEN", "connections_total": "TOTAL",
        "packets": "PACKETS", "bytes": "BYTES",
        "node": "NODE", "zone": "ZONE",
    },
    "affinity": {
        "service": "SERVICE", "client": "CLIENT", "backend": "BACKEND", "seconds_left": "LEFT",
    },
    "flows": {
        "protocol": "PROTOCOL", "client": "CLIENT", "frontend": "FRONTEND", "backend": "BACKEND",
        "mode": "MODE", "state": "STATE", "idle_seconds": "IDLE", "packets": "PACKETS",
        "bytes": "BYTES", "service": "SERVICE",
    },
    "limits": {
        "pod": "POD", "address": "ADDRESS", "egress": "EGRESS", "ingress": "INGRESS",
        "bytes": "BYTES", "delayed": "DELAYED", "marked": "MARKED", "dropped": "DROPPED",
        "state": "STATE",
    },
    "drops": {"reason": "REASON", "count": "COUNT", "meaning": "MEANING"},
    "maps": {
        "map": "MAP", "kind": "KIND", "entries": "ENTRIES", "capacity": "CAPACITY",
        "entry_bytes": "ENTRY", "memory_bytes": "MEMORY",
    },
}  # fmt: skip


@tidegate.command()
@click.argument("what", type=click.Choice(list(SHOWN)), metavar="|".join(SHOWN))
@click.option("--service", metavar="NAMESPACE/NAME", help="Only rows of this service.")
@click.option("--address", metavar="IP", help="Only rows with this address on either side.")
@BPFFS
@API_SOCKET
@OUTPUT
@_answers
def show(  # noqa: PLR0913, PLR0917 - one argument an option
    what: str,
    service: str | None,
    address: str | None,
    bpffs: Path,
    api_socket: Path,
    output: str,
) -> int:
    """What the pinned maps hold; works with the agent dead, too."""
    from lb.looking import rows  # noqa: PLC0415
    from lb.narrow import narrowed  # noqa: PLC0415
    from lb.text import table  # noqa: PLC0415
    from lb.words import flattened  # noqa: PLC0415

    found = narrowed(what, rows(what, bpffs, api_socket), service, address)
    if output == "json":
        _json(found)
    else:
        table(flattened(what, found), SHOWN[what])
    return 0


@tidegate.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--node-name", default="", help="Which node to plan for; decides what is local.")
@API_SOCKET
@BPFFS
@OUTPUT
@_answers
def plan(folder: Path, node_name: str, api_socket: Path, bpffs: Path, output: str) -> int:  # noqa: ARG001
    """What the maps would hold for the manifests in DIR; changes nothing and needs no root.

    Exit 1 if any object or file cannot be used.
    """
    from lb.planning import planned  # noqa: PLC0415

    answer = planned(folder, node_name)
    if output == "json":
        _json(answer)
    else:
        for line in answer["lines"]:
            click.echo(line)
        for one in answer["left_alone"]:
            click.echo(f"left alone  {one['subject']}: {one['reason']}")
        for one in [*answer["refused"], *answer["failing"]]:
            click.echo(f"{one['subject']}: {one['reason']}", err=True)
    return 1 if answer["refused"] or answer["failing"] else 0


@tidegate.command()
@API_SOCKET
@BPFFS
@OUTPUT
@_answers
def verify(api_socket: Path, bpffs: Path, output: str) -> int:  # noqa: ARG001
    """Compares every map with what the agent put there; exit 1 and the differences if not equal."""
    from lb.client import ask  # noqa: PLC0415

    answer = ask(api_socket, "/verify")
    if output == "json":
        _json(answer)
    else:
        for line in answer["differences"] or ["the maps are as they should be"]:
            click.echo(line)
    return 0 if answer["good"] else 1


@tidegate.command()
@BPFFS
@CGROUP
@API_SOCKET
@OUTPUT
@click.option("--devices", default="", hidden=True)
@_answers
def cleanup(bpffs: Path, cgroup: Path | None, api_socket: Path, output: str, devices: str) -> int:  # noqa: ARG001
    """Takes everything off this node: programs, maps, pins. Refuses while an agent runs."""
    from lb.looking import clean  # noqa: PLC0415

    removed = clean(bpffs)
    if output == "json":
        _json({"removed": removed})
    else:
        click.echo(f"removed {len(removed)} pins" if removed else "nothing was there")
    return 0


def main() -> None:
    """The program; called by kube-proxy's name, it is the agent."""
    if Path(sys.argv[0]).name == KUBE_PROXY:
        kube_proxy()
    _run(tidegate, "tidegate")


def kube_proxy() -> None:
    """The agent under kube-proxy's name."""
    _run(agent, KUBE_PROXY)


def _run(command: click.Command, name: str) -> None:
    """Wrong usage is one line, too, and exit status 2."""
    try:
        sys.exit(command(prog_name=name, standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else name
        click.echo(f"{name}: {error.format_message()} See {path} --help.", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
