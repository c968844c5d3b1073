"""How commands end: the answer printed, its exit status, and errors of one line each."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from lb.errors import TidegateError


def answers(function: Callable[..., int]) -> Callable[..., None]:
    """The function's result is the exit status; its errors are one line each."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            status = function(*args, **kwargs)
        except TidegateError as error:
            click.echo(f"tidegate: {error}", err=True)
            sys.exit(error.status)
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            click.echo(f"tidegate:{where} {error.strerror or error}", err=True)
            sys.exit(2)
        sys.exit(status)

    return wrapped


def print_json(value: Any) -> None:
    """One JSON value, for people and for scripts."""
    click.echo(json.dumps(value, indent=2))
