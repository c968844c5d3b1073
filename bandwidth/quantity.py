"""Kubernetes quantities (`10M`, `1.5G`, `500k`, `1e6`), read as the API server reads them. Pure.

The rules are those of `ParseQuantity` in k8s.io/apimachinery/pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

_FORM = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[+-]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LARGEST = (1 << 63) - 1
_LONGEST = 64
"""Characters; also keeps a number of a million digits from being computed."""


def parse(text: str) -> int:
    """The quantity, rounded up to a whole number and capped at 2^63 - 1. Raises ValueError."""
    found = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError("is no quantity")
    sign, whole, part, suffix = found[1], found[2], found[3] or "", found[4]
    if not whole + part:
        raise ValueError("has no digits")
    power, base = _scale(suffix)
    number = Fraction(int(whole + part), 10 ** len(part))
    if not number:
        return 0  # whatever its exponent, which is not to be computed
    if base == 10 and len(whole) + power > 2 * _LONGEST:  # nor this
        number = Fraction(_LARGEST)
    elif base == 10 and power < -2 * _LONGEST:
        number = min(number, Fraction(1, 10**9))
    else:
        number *= Fraction(base) ** power
    value = min(ceil(number), _LARGEST)
    return -value if sign == "-" else value


def _scale(suffix: str) -> tuple[int, int]:
    """Power and base of a suffix. Raises ValueError."""
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], 10
    if suffix in _BINARY:
        return _BINARY[suffix], 2
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None:
        raise ValueError(f"has no suffix {suffix!r}")
    return int(exponent[1]), 10
