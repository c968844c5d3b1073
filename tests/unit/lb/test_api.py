"""The door: a real unix socket that only root can open, and the client that asks there."""

from __future__ import annotations

import socketserver
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lb.api import Server
from lb.client import ask
from lb.errors import AgentUnreachable, BadInput


def echo(query: dict[str, str]) -> Any:
    """The query; `n` has to be a number, `broken` is the kernel's fault."""
    if "broken" in query:
        raise OSError(5, "Input/output error")
    return {**query, "n": int(query.get("n", "0"))}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """A server's socket."""
    path = tmp_path / "run" / "agent.sock"
    server = Server(path, {"/echo": echo})
    server.start()
    yield path
    server.shutdown()
    server.server_close()


def test_only_the_owner_may_ask(door: Path) -> None:
    """Mode 0600 from the first moment on."""
    assert stat.S_IMODE(door.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(door.stat().st_mode)


def test_an_answer_is_json(door: Path) -> None:
    """Parameters arrive, also quoted ones; the last of two counts."""
    assert ask(door, "/echo?n=7&text=a%20b&text=c") == {"n": 7, "text": "c"}


@pytest.mark.parametrize(
    ("question", "match"),
    [
        ("/echo?n=x", "invalid literal"),
        ("/other", "no such path"),
        ("/echo?broken=1", "Input/output"),
    ],
)
def test_a_bad_question_is_one_line(door: Path, question: str, match: str) -> None:
    """What the agent cannot answer is said, and the door stays open."""
    with pytest.raises(BadInput, match=match):
        ask(door, question)
    assert ask(door, "/echo") == {"n": 0}


def test_a_waiting_question_holds_up_no_other(tmp_path: Path) -> None:
    """A long poll has a thread of its own."""
    release, entered = threading.Event(), threading.Event()

    def wait(_: dict[str, str]) -> Any:
        entered.set()
        return release.wait(10)

    path = tmp_path / "agent.sock"
    server = Server(path, {"/wait": wait, "/echo": echo})
    server.start()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask(path, "/wait")))
    thread.start()
    assert entered.wait(10)
    assert ask(path, "/echo") == {"n": 0}
    release.set()
    thread.join(10)
    server.shutdown()
    server.server_close()
    assert answers == [True]


def test_a_socket_left_behind_is_replaced(door: Path) -> None:
    """An agent that was killed leaves its socket; the next one serves there."""
    server = Server(door, {"/echo": lambda _: "new"})
    server.start()
    assert ask(door, "/echo") == "new"
    server.shutdown()
    server.server_close()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    """A wrong --api-socket deletes nobody's file."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use"):
        Server(path, {})
    assert path.read_text() == "data"


def test_no_agent_is_one_line(tmp_path: Path) -> None:
    """The path and the flag are named."""
    with pytest.raises(AgentUnreachable, match="--api-socket") as caught:
        ask(tmp_path / "agent.sock", "/echo")
    assert str(tmp_path) in str(caught.value)


def test_someone_else_on_the_socket_is_no_agent(tmp_path: Path) -> None:
    """What does not speak HTTP is said in one line, too."""

    class Junk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"SSH-2.0-OpenSSH\r\n")

    path = tmp_path / "junk.sock"
    with socketserver.UnixStreamServer(str(path), Junk) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(AgentUnreachable, match="no agent answers"):
            ask(path, "/echo")
        thread.join(10)
