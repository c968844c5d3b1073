"""The commands that look: their flags, and how their answers are printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lb.answering import answers, print_json
from lb.options import API_SOCKET, BPFFS, OUTPUT, PROGRAM_CACHE


@click.command()
@click.option("--service", metavar="NAMESPACE/NAME", help="Only events of this service.")
@click.option("--pod", metavar="NAMESPACE/NAME", help="Only those with this pod on either side.")
@click.option("--address", metavar="IP", help="Only those with this address on either side.")
@click.option("--reason", help="Only drops and refusals for this reason.")
@click.option(
    "--sample", default=1, show_default=True, type=click.IntRange(min=1), metavar="N",
    help="Of new connections tell one in N; drops are all told.",
)  # fmt: skip
@click.option(
    "--count", default=0, type=click.IntRange(min=0), metavar="N", help="End after N events."
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "compact", "json"]), default="text",
    show_default=True, help="How to print; json: a line each.",
)  # fmt: skip
@BPFFS
@API_SOCKET
@answers
def monitor(**flags: Any) -> int:
    """What happens, as it happens: new connections, drops and refusals; also with the agent dead.

    Costs nothing while nobody runs it. Ends at Ctrl-C.
    """
    from lb.see.events import Wanted  # noqa: PLC0415
    from lb.see.monitor import FORMS  # noqa: PLC0415
    from lb.see.monitor import monitor as watch  # noqa: PLC0415

    form, output = FORMS[flags["output"]], flags["output"]

    def say(row: dict[str, Any]) -> None:
        if row["event"] == "listening":
            click.echo("listening; Ctrl-C ends it", err=True)
        elif row["event"] == "lost" and output != "json":
            click.echo(f"lost {row['count']} events: too many at once; try --sample", err=True)
        else:
            click.echo(form(row))
            sys.stdout.flush()

    wanted = Wanted(flags["service"], flags["pod"], flags["address"], flags["reason"])
    bpffs, api_socket = Path(flags["bpffs"]), Path(flags["api_socket"])
    try:
        watch(bpffs, api_socket, wanted, every=flags["sample"], count=flags["count"], say=say)
    except KeyboardInterrupt:
        return 0
    return 0


@click.command()
@click.argument("protocol", type=click.Choice(["tcp", "udp"], case_sensitive=False), required=False)
@click.argument("source", required=False, metavar="SRC:PORT")
@click.argument("destination", required=False, metavar="DST:PORT")
@click.option("--from-pod", metavar="NAMESPACE/NAME", help="It is a socket of this pod that asks.")
@click.option(
    "--via", type=click.Choice(["socket", "device"]),
    help="A connect, or a packet.  [default: what this node sees first of SRC]",
)  # fmt: skip
@click.option(
    "--capture", type=click.Path(path_type=Path), metavar="FILE.pcap",
    help="In place of one packet all those of a capture, one after the other.",
)  # fmt: skip
@OUTPUT
@BPFFS
@API_SOCKET
@PROGRAM_CACHE
@answers
def explain(**flags: Any) -> int:
    """Where would this packet or connect go, and why? Disturbs nothing.

    The loaded programs decide, on the live tables. Exit 1 if it is dropped or refused.
    """
    from lb.see.asking import explained  # noqa: PLC0415

    found = explained(flags)
    if flags["output"] == "json":
        print_json(found if flags["capture"] else found[0])
    else:
        for one in found:
            if flags["capture"]:
                click.echo(f"-- {one['protocol']} {one['source']} -> {one['destination']}")
            click.echo("\n".join(one["story"]))
            click.echo(f"verdict: {one['verdict']}")
    return 1 if any(one["verdict"] in ("drop", "reject") for one in found) else 0


@click.command()
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(min=0.1),
    metavar="SECONDS", help="Between two looks.",
)  # fmt: skip
@click.option("--count", default=0, type=click.IntRange(min=0), help="End after so many pictures.")
@BPFFS
@API_SOCKET
@answers
def top(bpffs: Path, api_socket: Path, interval: float, count: int) -> int:
    """The busiest services and backends, and what is dropped, again and again until Ctrl-C."""
    from lb.see.top import top as show  # noqa: PLC0415

    try:
        show(bpffs, api_socket, interval=interval, count=count)
    except KeyboardInterrupt:
        return 0
    return 0


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="FILE.tar.gz", required=False)
@click.option(
    "--log", type=click.Path(path_type=Path), help="File with the agent's log.  [default: journal]"
)
@BPFFS
@API_SOCKET
@OUTPUT
@answers
def sysdump(
    target: Path | None, log: Path | None, bpffs: Path, api_socket: Path, output: str
) -> int:
    """One archive for a bug report: status, maps, programs, versions, logs, network; no secrets."""
    import time  # noqa: PLC0415

    from lb.see.sysdump import sysdump as dump  # noqa: PLC0415

    to = target or Path(time.strftime("tidegate-sysdump-%Y%m%d-%H%M%S.tar.gz"))
    found = dump(to, bpffs, api_socket, log=log)
    if output == "json":
        print_json({"file": str(to), "parts": found})
    else:
        click.echo(f"{to}: {', '.join(found)}")
    return 0


COMMANDS = (monitor, explain, top, sysdump)
