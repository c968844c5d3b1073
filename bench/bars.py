"""Draws figures as horizontal bars on a logarithmic scale, into a PNG. Not for anything finer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

WIDTH, LABEL, ROW, TOP, SIZE = 900, 260, 26, 60, 15
COLOURS = ("#3465a4", "#c17d11")
INK, PAPER = "#2e3436", "white"


class Bar(NamedTuple):
    """One figure. `tone` 0 or 1 tells two sorts apart."""

    label: str
    value: float
    tone: int = 0


def draw(title: str, bars: Sequence[Bar], unit: str, target: Path) -> None:
    """Writes the picture; every value is positive. Raises OSError."""
    image = Image.new("RGB", (WIDTH, TOP + ROW * len(bars) + 20), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(SIZE)
    pen.text((20, 18), f"{title} ({unit}, logarithmic)", INK, font)
    least = 10 ** math.floor(math.log10(min(one.value for one in bars)))
    most = max(one.value for one in bars)
    room = WIDTH - LABEL - 110
    for number, one in enumerate(bars):
        y = TOP + number * ROW
        length = room * math.log(one.value / least) / math.log(most / least)
        pen.text((20, y + 3), one.label, INK, font)
        pen.rectangle((LABEL, y + 3, LABEL + max(2, length), y + ROW - 4), COLOURS[one.tone])
        pen.text((LABEL + max(2, length) + 8, y + 3), f"{one.value:.2f}", INK, font)
    image.save(target)
