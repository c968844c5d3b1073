"""Log lines as Kubernetes' components write them: text, JSON, and what each verbosity shows."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable

import pytest

from lb import logs
from lb.logs import V2, V4

log = logging.getLogger("tidegate.test")
LINE = re.compile(r"([IWE])\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ test_logs\.py:\d+\] (.*)")


def lines(say: Callable[[], None], form: str = "text", verbosity: int = 0) -> list[str]:
    """What was written of what is said under some format and verbosity."""
    stream = io.StringIO()
    logs.set_up(form, verbosity, stream)
    say()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("level", "message", "extra", "expected"),
    [
        (logging.INFO, "synced: 3", {}, ("I", "synced: 3")),
        (logging.WARNING, "taken", {"port": 80}, ("W", '"taken" port=80')),
        (logging.ERROR, "fails", {"err": 'a "b"\nc'}, ("E", '"fails" err="a \\"b\\"\\nc"')),
        (logging.CRITICAL, "ends", {}, ("E", "ends")),
        (
            logging.INFO, "Change is applied",
            {"service": "default/web", "writes": 2, "good": True, "none": None},
            ("I", '"Change is applied" service="default/web" writes=2 good=true none="None"'),
        ),
    ],
)  # fmt: skip
def test_text_lines(
    level: int, message: str, extra: dict[str, object], expected: tuple[str, str]
) -> None:
    """The header is klog's; quotes where there are keys; one line whatever is in it."""
    (line,) = lines(lambda: log.log(level, message, extra=extra))
    found = LINE.fullmatch(line)
    assert found is not None, line
    assert found.groups() == expected


def test_json_lines() -> None:
    """One object a line; errors have no `v`."""

    def say() -> None:
        log.log(V2, "Change is applied", extra={"service": "default/web", "writes": 2})
        log.error("Service fails", extra={"service": "default/web", "err": "no\nroom"})

    first, second = [json.loads(line) for line in lines(say, "json", 2)]
    assert first.pop("ts") > 1.7e12
    assert re.fullmatch(r"test_logs\.py:\d+", first.pop("caller"))
    assert first == {
        "msg": "Change is applied", "severity": "info", "v": 2,
        "service": "default/web", "writes": 2,
    }  # fmt: skip
    assert (second["severity"], second["err"], "v" in second) == ("error", "no\nroom", False)


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [(0, "0"), (1, "0"), (2, "02"), (3, "02"), (4, "024"), (5, "024"), (6, "0246"), (10, "0246")],
)
def test_verbosity(verbosity: int, shown: str) -> None:
    """0 always, 2 changes, 4 details, 6 what libraries say."""

    def say() -> None:
        log.info("0")
        log.log(V2, "2")
        log.log(V4, "4")
        logging.getLogger("urllib3.test").debug("6")

    found = [line.rpartition(" ")[2] for line in lines(say, "text", verbosity)]
    assert "".join(found) == shown


def test_a_stack_follows_its_line() -> None:
    """In JSON it is a field of it."""

    def say() -> None:
        try:
            int("why")
        except ValueError:
            log.exception("broken")

    text = lines(say)
    assert text[0].endswith("] broken")
    assert text[-1] == "ValueError: invalid literal for int() with base 10: 'why'"
    (line,) = lines(say, "json")
    assert json.loads(line)["stacktrace"].endswith(
        "ValueError: invalid literal for int() with base 10: 'why'"
    )
