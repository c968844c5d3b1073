"""The service manager is told once the agent is ready; one that is gone harms nobody."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from lb.ready import announce


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_told(tmp_path: Path, *, abstract: bool) -> None:
    """At a path, or at an abstract name."""
    path = f"@{tmp_path}/notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if abstract else path)
        manager.settimeout(5)
        announce(path)
        assert manager.recv(64) == b"READY=1\n"


def test_one_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Or that does not listen any more: a warning, and the agent serves."""
    gone = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(gone))
    with caplog.at_level(logging.WARNING, logger="tidegate"):
        announce(str(gone))
        announce(str(tmp_path / "never"))
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"could not tell the service manager at {gone}",
        f"could not tell the service manager at {tmp_path / 'never'}",
    ]


def test_without_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told, and nothing is said."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    announce()
