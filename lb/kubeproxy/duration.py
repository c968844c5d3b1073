"""Durations as Go writes them: `30s`, `1h30m`, `-1.5h`, `100ms`.

Source: package `time` of Go, `ParseDuration` and `Duration.String`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lb.errors import BadInput

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6,
    "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"[-+]?(?:{_PART.pattern})+", re.ASCII)
_LARGEST = (1 << 63) - 1


class Duration(int):
    """A span of time in nanoseconds."""

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self / 10**9

    def __str__(self) -> str:
        """As Go prints it: `1h0m0s`, `1.5s`, `100ms`."""
        sign, rest = ("-" if self < 0 else ""), abs(int(self))
        if not rest:
            return "0s"
        if rest < 10**9:
            unit = next(one for one in ("ms", "µs", "ns") if rest >= _UNITS[one])
            return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
        minutes, nanoseconds = divmod(rest, _UNITS["m"])
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(nanoseconds, _UNITS['s'])}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return f"{sign}{hours}h{text}" if hours else sign + text


def parse(text: str) -> Duration:
    """The duration that `text` names. Raises BadInput."""
    if text in ("0", "+0", "-0"):
        return Duration(0)
    if not _WHOLE.fullmatch(text):
        raise BadInput(f"{text!r} is not a duration: write 30s, 1m30s or 2h")
    total = sum(Fraction(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if total > _LARGEST:
        raise BadInput(f"{text!r} is not a duration: it is above 290 years")
    return Duration(-int(total) if text.startswith("-") else int(total))


def _decimal(amount: int, unit: int) -> str:
    """`amount / unit` in decimal, without zeros at the end."""
    whole, rest = divmod(amount, unit)
    digits = len(str(unit)) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)
