"""How log lines look: as those of Kubernetes' own components, in text or in JSON.

A line is a message, and what it is about as keys and values: the `extra` of Python's logging.

    I1121 16:05:23.123456    1234 telling.py:52] "Change is applied" service="default/web" writes=1

`-v` as Kubernetes' logging conventions have it: 0 always, 2 what changes in a steady state,
4 details, 6 also what libraries say.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import IO, Any

NAME = "tidegate"
"""The logger above all of ours."""
V2, V4 = logging.INFO - 2, logging.INFO - 4
DETAILS, LIBRARIES = 4, 6

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_WORDS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (0, "info"))


def set_up(form: str, verbosity: int, stream: IO[str] | None = None) -> None:
    """Send all logs to the stream (standard error), as `text` or `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbosity >= LIBRARIES else logging.WARNING)
    own = logging.DEBUG if verbosity >= DETAILS else logging.INFO - verbosity
    logging.getLogger(NAME).setLevel(own)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The keys and values of a record."""
    return {key: value for key, value in vars(record).items() if key not in _OWN}


def severity(record: logging.LogRecord) -> str:
    """`error`, `warning` or `info`: what is less is told apart by its `v`."""
    return next(word for level, word in _WORDS if record.levelno >= level)


class Text(logging.Formatter):
    """klog's header; message and strings in quotes where there are keys."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the stack of an exception."""
        at = self.formatTime(record, "%m%d %H:%M:%S")
        head = f"{severity(record)[0].upper()}{at}.{int(record.msecs * 1000):06} {record.process:7}"
        found, said = fields(record), record.getMessage()
        if found:
            pairs = " ".join(f"{key}={_shown(value)}" for key, value in found.items())
            said = f"{_shown(said)} {pairs}"
        line = f"{head} {record.filename}:{record.lineno}] {said}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One object a line: `ts` in milliseconds since the epoch, `caller`, `msg`, `v`, then the keys.

    Errors have no `v`, as in Kubernetes; `severity` stands beside it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "ts": record.created * 1000,
            "caller": f"{record.filename}:{record.lineno}",
            "msg": record.getMessage(),
            "severity": severity(record),
        }
        if record.levelno < logging.ERROR:
            line["v"] = max(0, logging.INFO - record.levelno)
        line |= fields(record)
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)
