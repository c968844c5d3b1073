"""When kube-proxy's rules are taken away: not while it runs, and again whenever they are back."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb import handover, takeover
from lb.handover import Handover, Timing, running

LOOK = 60.0


class Node:
    """What a handover finds: rules, perhaps, and a kube-proxy that is seen, or one that is not."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rules, self.process, self.is_kept = True, 0, False
        self.taken = 0
        self.reasons: list[str] = []
        patch.setattr(takeover, "traces", lambda: self.rules)
        patch.setattr(takeover, "remove_rules", self._remove)
        for removes in ("remove_servers", "remove_device"):
            patch.setattr(takeover, removes, lambda _: [])
        patch.setattr(handover, "running", lambda *_: self.process)
        self.handover = Handover(lambda *_: True, threading.Event(), self._told, Timing(look=LOOK))

    def _remove(self, _: object) -> list[str]:
        if not self.rules or self.is_kept:
            return []
        self.rules = False
        self.taken += 1
        return ["chains"]

    def _told(self) -> None:
        self.reasons.append(self.handover.feature().get("reason", ""))

    def look(self, number: int) -> int:
        """The look of that number; the process whose end is waited for."""
        return self.handover._look(number * LOOK)

    @property
    def state(self) -> str:
        """What `status` shows."""
        return str(self.handover.feature()["state"])


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """One with rules that nobody uses any more."""
    return Node(monkeypatch)


def test_rules_that_were_left_go_at_once(node: Node) -> None:
    """And nothing is said of them but in the log."""
    assert node.state == "off"
    assert node.look(0) == 0
    assert (node.taken, node.state) == (1, "on")
    for number in range(1, 5):
        node.look(number)
    assert (node.taken, node.reasons) == (1, [""])


def test_while_kube_proxy_runs_its_rules_stay(node: Node) -> None:
    """The status says what to do; once it has ended they go, and all is well."""
    node.process = 12
    assert [node.look(number) for number in range(3)] == [12, 12, 12]
    assert (node.taken, node.state) == (0, "degraded")
    assert node.reasons == [node.handover.feature()["reason"]]
    assert "kube-proxy still runs on this node (process 12)" in node.reasons[0]
    node.process = 0
    assert node.look(3) == 0
    assert (node.taken, node.state) == (1, "on")


def test_a_kube_proxy_that_comes_back_is_waited_for(node: Node) -> None:
    """After a first take-over as before it."""
    node.look(0)
    node.rules, node.process = True, 13
    assert node.look(1) == 13
    assert (node.taken, node.state) == (1, "degraded")
    node.process = 0
    node.look(2)
    assert (node.taken, node.state) == (2, "on")


def test_nobody_out_of_sight_is_fought_with(node: Node) -> None:
    """Rules that come back without a process go again after 1, 3, 7, 15, ... minutes."""
    gone = []
    for number in range(200):
        before = node.taken
        node.rules = True
        node.look(number)
        if node.taken > before:
            gone.append(number)
        assert node.state == ("on" if number == 0 else "degraded")
    assert gone == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    node.rules = False
    node.look(200)
    assert node.state == "on"


def test_what_others_need_is_no_fault(node: Node) -> None:
    """A chain of kube-proxy's that a CNI's own leads to stays, however often one looks."""
    node.is_kept = True
    for number in range(10):
        node.look(number)
        assert node.state == "on"


def test_a_look_that_fails_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends nothing: the next look may work."""

    def broken() -> bool:
        node.handover._stop.set()
        raise OSError("no iptables")

    monkeypatch.setattr(takeover, "traces", broken)
    node.handover._timing = Timing(rest=0.0)
    node.handover.run()
    assert node.state == "degraded"
    assert "could not look for kube-proxy's rules: no iptables" in node.reasons[0]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of kube-proxy's name."""
    program = tmp_path / "kube-proxy"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        yield process
        process.kill()


def test_kube_proxy_is_seen_by_its_program(sleeper: subprocess.Popen[bytes]) -> None:
    """Until it ends; other programs, and our own process, are not it."""
    assert running() == sleeper.pid
    assert running([os.getpid(), sleeper.pid]) == sleeper.pid
    assert running([os.getpid()]) == 0
    sleeper.kill()
    sleeper.wait()
    assert running() == 0
