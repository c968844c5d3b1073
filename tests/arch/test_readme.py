"""The README says what is so."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from bpf.layout import Listener, Reason, Row
from bpf.maps import MemoryArray
from bpf.probe import features
from lb.cli import tidegate
from lb.limits.metrics import LimitsCollector
from lb.metrics import TidegateCollector
from lb.see.metrics import TrafficCollector
from lb.words import REASONS
from tests.bed.process import REPOSITORY
from tests.unit.lb.test_controller import Bench

TEXT = (REPOSITORY / "README.md").read_text()
TESTED = re.findall(r"<!-- tested -->\n```console\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    (command, [line for line in shown.splitlines() if line])
    for block in TESTED
    for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.mark.parametrize(("command", "shown"), COMMANDS)
def test_its_commands_work(command: str, shown: list[str]) -> None:
    """Each harmless command runs, and begins with the lines that stand below it."""
    argv = command.split()
    if argv[0] == ".venv/bin/tidegate":
        argv[:1] = [sys.executable, "-m", "lb"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[: len(shown)] == shown


def test_it_shows_commands_that_can_be_tried() -> None:
    """The pattern above finds them."""
    assert len(COMMANDS) >= 4


def test_its_transcript_is_of_the_demo() -> None:
    """Each line is one that the demo prints, and stands there once."""
    shown = TEXT.partition("what was asked")[2].partition("```")[0].splitlines()[2:]
    asked = [re.split(r" {2,}", line.strip())[0] for line in shown if line.startswith(" ")]
    demo = "".join(path.read_text() for path in (REPOSITORY / "deploy/demo").glob("*.py"))
    assert len(asked) > 10
    assert [one for one in asked if one not in demo] == []
    assert sorted(set(asked)) == sorted(asked)


def test_its_flags_exist() -> None:
    """Every flag that it names belongs to some command."""
    with click.Context(tidegate):
        known = {
            flag
            for command in [tidegate, *tidegate.commands.values()]
            for parameter in command.get_params(click.Context(command))
            for flag in parameter.opts
        }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"<!--.*?-->", "", TEXT)))
    assert named - known == set()
    assert len(named) > 10


def test_its_commands_exist() -> None:
    """Every sub-command that it names is one, and every one is named."""
    assert set(re.findall(r"`tidegate (\w+)", TEXT)) == set(tidegate.commands)


def test_its_requirements_are_those_that_check_looks_for() -> None:
    """The table of kernel features is bpf/probe.py's."""
    table = TEXT.partition("| Kernel feature |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert rows == [[one.name, one.since, one.without] for one in features(None)]


def test_every_reason_is_explained() -> None:
    """The table of reasons is bpf/seen.h's, and so is what `show drops` says."""
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", TEXT.partition("**Reasons**")[2], re.MULTILINE)
    said = re.findall(
        r"REASON_(\w+) = \d+,\s+/\* (.+) \*/", (REPOSITORY / "bpf/seen.h").read_text()
    )
    assert rows == [(name.lower(), meaning) for name, meaning in said]
    assert rows == list(REASONS.items())
    assert [name for name, _ in said] == [one.name for one in Reason if one is not Reason.NONE]


def test_every_metric_is_explained() -> None:
    """The table of metrics is what a scrape gives, in its order and its words."""
    bench = Bench()
    listening = MemoryArray(1, Listener.SIZE)
    collectors = (
        TidegateCollector(bench.controller, dict, lambda: 0),
        TrafficCollector(bench.controller, MemoryArray(1, Row.SIZE), listening),
        LimitsCollector(list),
    )
    rows = [
        (one.name + ("_total" if one.type == "counter" else ""), one.type, one.documentation)
        for collector in collectors
        for one in collector.collect()
    ]
    table = TEXT.partition("**Metrics**")[2].partition("**Reasons**")[0]
    assert re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", table, re.MULTILINE) == rows
