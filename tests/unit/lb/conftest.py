"""A source that follows a stand-in API server, and an inbox that remembers what it was told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lb.model import Change, Key, Kind, Object
from lb.sources import Report
from lb.sources.kubernetes import KubernetesSource
from lb.sources.reflector import Timing
from tests.bed.apiserver import ApiServer

QUICK = Timing(
    first_pause=0.02, longest_pause=0.1, connect=2.0, answer=2.0, node=0.2, missing=0.1, peers=0.1
)
PATIENCE = 5.0


class Recorder:
    """An inbox."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Change]] = []
        self.reports: list[Report] = []
        self.synced_after: list[int] = []
        """How many changes had come at each `synced`."""
        self._told = threading.Condition()

    @property
    def changes(self) -> list[Change]:
        """All changes so far."""
        return [change for batch in self.batches for change in batch]

    @property
    def report_now(self) -> Report:
        """The last report."""
        return self.reports[-1]

    def held(self) -> dict[Key, Object]:
        """What is in force, by all changes so far."""
        last = {change.key: change.value for change in self.changes}
        return {key: value for key, value in last.items() if value is not None}

    def names(self, kind: Kind = Kind.SERVICE) -> set[str]:
        """The names of what is in force."""
        return {key.name for key in self.held() if key.kind is kind}

    def changed(self, changes: Sequence[Change]) -> None:
        """Remember the changes."""
        with self._told:
            self.batches.append(changes)
            self._told.notify_all()

    def synced(self) -> None:
        """Remember when."""
        with self._told:
            self.synced_after.append(len(self.changes))
            self._told.notify_all()

    def report(self, report: Report) -> None:
        """Remember the report."""
        with self._told:
            self.reports.append(report)
            self._told.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; looked at whenever something was told, and now and then."""
        with self._told:
            for _ in range(int(PATIENCE / 0.01)):
                if condition():
                    return
                self._told.wait(0.01)
        raise AssertionError(f"not in {PATIENCE} s; {self.changes[-5:]} {self.reports[-3:]}")


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An empty server that listens."""
    with ApiServer() as server:
        yield server


Start = Callable[..., Recorder]


@pytest.fixture
def start(api: ApiServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a source of node n1 on the server; by default everything else is as it should be."""
    running: list[tuple[threading.Thread, threading.Event]] = []

    def begin(
        timing: Timing = QUICK,
        *,
        synced: bool = True,
        pods: bool = False,
        host_ports: bool = False,
        all_nodes: bool = False,
        authority: Path | None = None,
        **user: str,
    ) -> Recorder:
        path = api.kubeconfig(tmp_path / "kubeconfig", authority=authority, **user)
        source = KubernetesSource(
            kubeconfig=str(path), master="", node_name="n1", timing=timing, pods=pods,
            host_ports=host_ports, all_nodes=all_nodes,
        )  # fmt: skip
        inbox, stop = Recorder(), threading.Event()
        thread = threading.Thread(target=source.run, args=(inbox, stop))
        thread.start()
        running.append((thread, stop))
        if synced:
            inbox.until(
                lambda: (
                    bool(inbox.synced_after)
                    and all(api.watched(name) for name in ("services", "endpointslices"))
                )
            )
        return inbox

    yield begin
    for thread, stop in running:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
