"""`python -m tests.bed [NAME]`: list the clusters on this machine, or take down a kept one."""

from __future__ import annotations

import sys

from tests.bed.claim import claims


def main(names: list[str]) -> int:
    """Exit status 0: done; 1: a name is not there, or its owner lives and will take it down."""
    found = {claim.name: claim for claim in claims()}
    if not names:
        for name, claim in found.items():
            print(name, "kept" if claim.kept else "in use, or left over", sep="\t")  # noqa: T201
        return 0
    for name in names:
        if name not in found or not found[name].take_from_the_dead():
            print(f"{name}: no such cluster, or it is in use", file=sys.stderr)  # noqa: T201
            return 1
        found[name].remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
