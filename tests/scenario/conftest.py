"""`pytest --update-golden` rewrites what the scenarios expect."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """One flag."""
    parser.addoption("--update-golden", action="store_true", help="rewrite expected blocks")
