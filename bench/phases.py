"""`python -m bench.phases agent ...`: the product's command line, which times its own start.

Wraps a few functions, whose work stays their own, and writes one line of JSON to the file named
by BENCH_PHASES once the first full state is applied: seconds by phase from BENCH_START (seconds
since the epoch) on. Phases of several threads overlap.
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

from bpf.pins import Building
from lb import agent_command
from lb.cli import main as command_line
from lb.letterbox import Letterbox

PHASES = ("import", "compile", "adopt", "objects", "store", "plan", "write", "freeze")
"""In their order. `import`: up to the first line of ours. `objects`: read, decoded, converted.
`freeze`: the garbage collector's part. `compile` runs in other processes, beside all else."""
FIRST = "_first"
"""A method of the controller that is its own alone, but for a clock."""


class Clock:
    """Seconds by phase, and the times of some moments."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.moments = {"start": float(os.environ["BENCH_START"])}

    def add(self, phase: str, since: str) -> None:
        """The phase ends now; it began at that moment."""
        self.seconds[phase] += time.time() - self.moments[since]

    def around(self, owner: Any, name: str, phase: str) -> None:
        """Every call of `owner.name` belongs to the phase."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            self.moments[phase] = time.time()
            result = inner(*args, **kwargs)
            self.add(phase, phase)
            return result

        setattr(owner, name, outer)

    def first(self, owner: Any) -> None:
        """The turn that applies everything: what is neither planning nor writing is the freeze."""
        inner = getattr(owner, FIRST)

        def outer(*args: Any) -> Any:
            self.moments["freeze"] = time.time()
            result = inner(*args)
            self.add("freeze", "freeze")
            self.seconds["freeze"] -= self.seconds["plan"] + self.seconds["write"]
            self.save()
            return result

        setattr(owner, FIRST, outer)

    def save(self) -> None:
        """What is known by now, for whoever started this."""
        Path(os.environ["BENCH_PHASES"]).write_text(json.dumps(self.seconds))

    def of_control(self) -> None:
        """What the agent loads late, and would load late without a clock, too."""
        from lb.controller import Controller  # noqa: PLC0415
        from lb.reconcile import Reconciler  # noqa: PLC0415
        from lb.store import Store  # noqa: PLC0415

        self.around(Reconciler, "adopt", "adopt")
        self.around(Store, "apply", "store")
        self.around(Controller, "plans", "plan")
        self.around(Reconciler, "step", "write")
        self.first(Controller)

    def of_compiler(self) -> None:
        """From its start until the agent knows that it is done."""
        begin, finish = Building.__init__, Building.finish

        def beginning(building: Building, folders: Any, jobs: Any) -> None:
            if jobs:
                self.moments["compile"] = time.time()
            begin(building, folders, jobs)

        def finishing(building: Building) -> None:
            finish(building)
            if "compile" in self.moments:
                self.seconds["compile"] = time.time() - self.moments.pop("compile")
                self.save()

        setattr(Building, "__init__", beginning)  # noqa: B010
        setattr(Building, "finish", finishing)  # noqa: B010

    def from_source_to_full(self) -> None:
        """From the source's start until it says that everything is delivered."""
        synced, reading = Letterbox.synced, agent_command.reading

        def begun(*args: Any) -> Letterbox:
            self.moments["source"] = time.time()
            letterbox = reading(*args)
            self.of_control()
            return letterbox

        def full(letterbox: Letterbox) -> None:
            self.add("objects", "source")
            synced(letterbox)

        setattr(agent_command, "reading", begun)  # noqa: B010
        setattr(Letterbox, "synced", full)  # noqa: B010


def main() -> None:
    """The command line, timed."""
    clock = Clock()
    clock.add("import", "start")
    clock.of_compiler()
    clock.from_source_to_full()
    command_line()


if __name__ == "__main__":
    main()
