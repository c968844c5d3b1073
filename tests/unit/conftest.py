"""What holds for every unit test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that is run within a test sets up logging for the whole process."""
    loggers = [logging.getLogger(), logging.getLogger("tidegate")]
    before = [(one, one.handlers, one.level) for one in loggers]
    yield
    for one, handlers, level in before:
        one.handlers = handlers
        one.setLevel(level)
