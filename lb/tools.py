"""Programs of others that are run, and what they say when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lb.errors import KernelRefused


def run(argv: Sequence[str], text: str = "") -> str:
    """The program's output; `text` is its input. Raises KernelRefused with its own word."""
    done = subprocess.run(  # noqa: S603 - our own words, no shell
        argv, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        # nft points at the place below what it has to say.
        word = next((line for line in said if "Error:" in line), said[-1])
        raise KernelRefused(f"{' '.join(argv)}: {word}")
    return done.stdout
