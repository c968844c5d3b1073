"""`python -m deploy.demo [--keep]`: runs the tour, prints one table; exit 0 only if all held."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.demo.asking import Seen
from deploy.demo.stage import MANIFESTS, Stage
from deploy.demo.tour import Try, end, tour
from tests.bed import BedError, Cluster, missing

COLUMNS = ("what was asked", "from", "expected", "seen", "time")
WIDE = 120
"""Columns, where no terminal says how wide it is."""


def main() -> int:
    """Exit status 0: all held; 1: something did not; 2: this machine cannot run it."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    keep: bool = parser.parse_args().keep
    if reason := missing():
        print(f"make demo: {reason}", file=sys.stderr)
        return 2
    os.environ.setdefault("TIDEGATE", str(Path(sys.executable).with_name("tidegate")))
    try:
        return _play(keep=keep)
    except KeyboardInterrupt:
        print("\nstopped; the cluster is taken down", file=sys.stderr)
        return 130
    except BedError as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 2


def _play(*, keep: bool) -> int:
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    started = time.monotonic()
    console.print("Building two nodes with six pods, and starting an agent on each node ...")
    with Cluster(nodes=2, name="demo") as cluster:
        stage = Stage(cluster)
        tries = [*tour(stage), *([] if keep else end(stage))]
        held = _run(console, tries)
        if keep:
            cluster.keep()
    console.print(f"{held} of {len(tries)} held, in {time.monotonic() - started:.0f} s")
    if keep:
        _print_how_to_look(stage)
    return 0 if held == len(tries) else 1


def _run(console: Console, tries: list[Try]) -> int:
    """Each try in turn, each a row as soon as it is done; how many held."""
    table = Table(*COLUMNS, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[-1].justify = "right"
    held = 0
    with Live(table, console=console, transient=True, vertical_overflow="visible"):
        for one in tries:
            seen = _outcome(one.do)
            good = seen.text == one.expected
            held += good
            text = Text(seen.text if good else f"{seen.text} - DID NOT HOLD")
            text.stylize("green" if good else "bold red")
            table.add_row(one.asked, one.origin, one.expected, text, _duration(seen.seconds))
    console.print(table)
    return held


def _outcome(do: Callable[[], Seen]) -> Seen:
    """What a try saw; a program that failed is a sight, too."""
    try:
        return do()
    except BedError as error:
        return Seen(str(error).strip().rpartition("\n")[2], 0.0)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _print_how_to_look(stage: Stage) -> None:
    print("\nThe cluster stays up. To look around:\n")
    for line in _commands(stage):
        print(f"  {line}")
    print("\nChange a manifest and look again. They are here, copies of those in")
    print(f"{_shown(MANIFESTS)}:\n\n  {stage.manifests.directory}")
    print("\nTo take it all down:\n")
    print(f"  {_shown(Path(sys.executable))} -m tests.bed {stage.cluster.name}")


def _commands(stage: Stage) -> Iterator[str]:
    agent, client = stage.agents[0], stage.pods["client-1"]
    tidegate = _shown(Path(os.environ["TIDEGATE"]))
    socket, pins = f"--api-socket {agent.api_socket}", f"--bpffs {agent.bpffs}"
    yield f"{tidegate} status {socket}"
    yield f"{tidegate} show services {pins} {socket}"
    yield f"{tidegate} show backends {pins}"
    yield f"{tidegate} verify {socket}"
    yield f"{tidegate} plan {stage.manifests.directory} --node-name {agent.node.name}"
    yield f"# curl and a shell in the pod {client.name}"
    yield shlex.join(client.argv("curl", "-s", "http://10.96.0.10/"))
    yield shlex.join(client.argv("bash"))


if __name__ == "__main__":
    sys.exit(main())
