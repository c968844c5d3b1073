"""The annotations of a Service that are Tidegate's own. Pure; never raises.

One that does not parse is noted and left out as a whole: the service is served by the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from lb.address import parse
from lb.errors import BadAddress
from lb.model import HEAVIEST, Algorithm, Weights
from lb.sources.notes import Notes, brief

PREFIX = "tidegate.io/"
ALGORITHM, WEIGHT = f"{PREFIX}algorithm", f"{PREFIX}weight"


def algorithm(annotations: Mapping[str, str], notes: Notes) -> Algorithm | None:
    """How clients outside are spread; None: as the node's flag says."""
    text = annotations.get(ALGORITHM)
    if not text:
        return None
    try:
        return Algorithm(text.strip())
    except ValueError:
        notes.add(f"annotation {ALGORITHM}: {brief(text)} is not {' or '.join(Algorithm)}")
        return None


def weights(annotations: Mapping[str, str], notes: Notes) -> Weights:
    """`10.244.1.5=3, web-0=2`: endpoints by address or by their pod's name; others have 1."""
    found: dict[bytes | int, int] = {}
    text = annotations.get(WEIGHT, "")
    for part in text.replace(",", " ").split():
        name, equals, number = part.partition("=")
        weight = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
        if not name or not equals or not 1 <= weight <= HEAVIEST:
            notes.add(
                f"annotation {WEIGHT}: {brief(part)} is not ADDRESS=WEIGHT or POD=WEIGHT,"
                f" with a weight of 1 to {HEAVIEST}"
            )
            return {}
        try:
            found[parse(name)] = weight
        except BadAddress:
            found[crc32(name.encode())] = weight
    return found
