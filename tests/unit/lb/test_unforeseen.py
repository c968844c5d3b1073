"""A thread that dies of what nobody foresaw ends the agent, with one line that names the place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lb.errors import TidegateError, Unforeseen
from lb.unforeseen import Guard, told


@pytest.fixture
def guard() -> Iterator[Guard]:
    """In force for one test."""
    before = threading.excepthook
    yield Guard()
    threading.excepthook = before


def dies(error: BaseException) -> None:
    """A thread that ends by it."""

    def run() -> None:
        raise error

    thread = threading.Thread(target=run, name="watching")
    thread.start()
    thread.join()


@pytest.mark.parametrize("before", [False, True])
def test_the_first_death_is_told_once(guard: Guard, *, before: bool) -> None:
    """Also one from before anybody is there to be told; later ones are its consequences."""
    ended: list[TidegateError] = []
    if not before:
        guard.lead_to(ended.append)
    dies(KeyError("of\nmine"))
    dies(ValueError("after it"))
    if before:
        guard.lead_to(ended.append)
    (error,) = ended
    assert isinstance(error, Unforeseen)
    assert error.status
    assert str(error).startswith("thread watching ended by KeyError: 'of\\nmine' (test_unforeseen")
    assert " run, threading.py:" in str(error)
    assert "\n" not in str(error)


def test_a_timer_counts_as_a_thread(guard: Guard) -> None:
    """What the standard library runs for us has the same end."""
    ended = threading.Event()
    guard.lead_to(lambda _: ended.set())
    threading.Timer(0.0, dict[str, int]().__getitem__, ("nothing",)).start()
    assert ended.wait(5)


def test_a_thread_that_ends_itself_is_no_fault(guard: Guard) -> None:
    """SystemExit is how a thread asks for its own end."""
    ended: list[TidegateError] = []
    guard.lead_to(ended.append)
    dies(SystemExit(1))
    assert not ended


def test_an_exception_of_many_lines_is_one() -> None:
    """One without a place is told, too."""
    assert told(RuntimeError("a\n b")) == "RuntimeError: a b"
