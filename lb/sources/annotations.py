"""The annotations that are Tidegate's own. Pure; never raises.

One that does not parse is noted and left out as a whole: the defaults hold in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar
from zlib import crc32

from lb.address import parse
from lb.errors import BadAddress
from lb.model import HEAVIEST, Weights
from lb.sources.notes import ANNOTATION, Notes, brief

PREFIX = "tidegate.io/"
ALGORITHM, WEIGHT = f"{PREFIX}algorithm", f"{PREFIX}weight"
FORWARDING, DISPATCH = f"{PREFIX}forwarding", f"{PREFIX}dsr-dispatch"


W = TypeVar("W", bound=StrEnum)


def word(
    words: type[W], name: str, annotations: Mapping[str, str | None], notes: Notes
) -> W | None:
    """What an annotation says; None: as the node has it."""
    value = annotations.get(name)
    if value is None:
        return None
    try:
        return words(value.strip())
    except ValueError:
        notes.add(f"{ANNOTATION}{name}: {brief(value)} is not {' or '.join(words)}")
        return None


def weights(annotations: Mapping[str, str], notes: Notes) -> Weights:
    """`10.244.1.5=3, web-0=2`: endpoints by address or by their pod's name; others have 1."""
    found: dict[bytes | int, int] = {}
    text = annotations.get(WEIGHT, "")
    for part in text.replace(",", " ").split():
        name, equals, number = part.partition("=")
        weight = _number(number)
        if not name or not equals or not weight:
            notes.add(
                f"{ANNOTATION}{WEIGHT}: {brief(part)} is not ADDRESS=WEIGHT or POD=WEIGHT,"
                f" with a weight of 1 to {HEAVIEST}"
            )
            return {}
        try:
            found[parse(name)] = weight
        except BadAddress:
            found[crc32(name.encode())] = weight
    return found


def weight(text: str | None, notes: Notes) -> int:
    """A Pod's own weight, `3`; 0: none is given, or none that can be read."""
    if text is None:
        return 0
    found = _number(text.strip())
    if not found:
        notes.add(f"{ANNOTATION}{WEIGHT}: {brief(text)} is not a weight of 1 to {HEAVIEST}")
    return found


def _number(text: str) -> int:
    """A weight; 0 for what is none."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    return number if number <= HEAVIEST else 0
