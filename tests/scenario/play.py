"""Plays a scenario: lines of text, each a verb with its words; what is indented belongs to it.

    sizes backends=3 slots=8    how long the tables are; before anything else
    apply                       the YAML documents below come or change
    delete KIND NAME            an object goes
    sync                        the first full state is there; before, nothing is written
    tick SECONDS                time passes
    restart                     another agent takes over; it has to sync anew
    expect WHAT                 the block below: maps, failing, waiting or refused

All but the reading of files is the product; the tables are in memory. This is node n1.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml

from bpf.maps import MemoryHash
from lb.config import Settings
from lb.controller import Controller
from lb.dump import lines
from lb.here import Addresses
from lb.model import Change, Key, Kind
from lb.reconcile import Reconciler
from lb.sources.convert import from_plain
from lb.tables import SIZES, in_memory

SETTINGS = Settings(
    node_name="n1", manifests=Path(), cgroup=Path(), bpffs=Path(), api_socket=Path()
)
SMALL = {name: min(size, 128) for name, size in SIZES.items()}


class Player:
    """One node in simulated time: a method for each verb, with its words and its block."""

    def __init__(self) -> None:
        self.now = 0.0
        self.addresses = MemoryHash(64)
        self.sizes("", "")

    def sizes(self, words: str, _: str) -> None:
        """Empty tables."""
        given = {name: int(count) for name, count in (word.split("=") for word in words.split())}
        self.tables = in_memory(SMALL | given)
        self.restart("", "")

    def restart(self, _: str, __: str) -> None:
        """A new agent on the tables as they are."""
        self.reconciler = Reconciler(self.tables, guard=lambda: None)
        self.reconciler.adopt()
        here = Addresses(self.addresses, SETTINGS)
        self.controller = Controller(SETTINGS, self.reconciler, here, reap=lambda _: None)

    def apply(self, _: str, block: str) -> None:
        """All documents of the block, in one turn; what a user got wrong has no place here."""
        changes = [from_plain(document) for document in yaml.safe_load_all(block)]
        found = [change for change in changes if isinstance(change, Change)]
        assert len(found) == len(changes)
        assert not [one for change in found for one in change.refused if one.wrong]
        self.controller.changed(found)
        self.controller.turn(self.now)

    def delete(self, words: str, _: str) -> None:
        """By kind and name, in the namespace default."""
        kind, name = words.split()
        self.controller.changed([Change(Key(Kind(kind), "default", name), None)])
        self.controller.turn(self.now)

    def sync(self, _: str, __: str) -> None:
        """From here on things are written, and removed."""
        self.controller.synced()
        self.controller.turn(self.now)

    def tick(self, seconds: str, _: str) -> None:
        """And whatever is due then."""
        self.now += float(seconds)
        self.controller.turn(self.now)

    def expect(self, what: str, _: str) -> str:
        """The block as it should be."""
        failing = sorted(self.reconciler.failing.items())
        losses = self.reconciler.frontends.claims.losses()
        refused = [one for group in self.controller.store.refused.values() for one in group]
        answers = {
            "maps": lines(self.tables),
            "failing": [f"{unit}: {one.error}; again at {one.retry_at:g}" for unit, one in failing],
            "waiting": [f"{unit} waits for {holder}" for unit, _, holder in losses],
            "refused": [f"{one.subject}: {one.reason}" for one in refused],
        }
        return textwrap.indent("\n".join(answers[what]) or "nothing", "  ")


def play(text: str) -> str:
    """The scenario, each expected block as it comes out."""
    player = Player()
    played = []
    for line, block in _verbs(text):
        verb, _, words = line.partition(" ")
        got = None if verb == "#" else getattr(player, verb)(words, textwrap.dedent(block))
        played += [line, *(block if got is None else got).splitlines()]
    return "\n".join(played) + "\n"


def _verbs(text: str) -> Iterator[tuple[str, str]]:
    """Each line at the margin, with the indented lines that follow it."""
    rows = text.splitlines()
    while rows:
        line, end = rows.pop(0), 0
        while end < len(rows) and rows[end].startswith("  "):
            end += 1
        yield line, "\n".join(rows[:end])
        del rows[:end]
