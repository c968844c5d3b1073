"""`python -m tests.vm.ahead RELEASE FOLDER`: compiles here what agents on another kernel ask for.

Under emulation that takes minutes. What comes out depends on the text and its constants; the
kernel's release is only part of the name under which it is kept, so it is given here.
"""

from __future__ import annotations

import io
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from bpf import module
from bpf.pins import BPFFS, Pins, mount
from bpf.texts import EDT, LB, SOCK
from lb.config import table_sizes


class _Input(io.TextIOWrapper):
    """Standard input of given bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def main() -> int:
    """0 when all is kept."""
    release, folder = sys.argv[1:]
    platform.release = lambda: release
    mount(BPFFS)
    place = Path(tempfile.mkdtemp(prefix="tidegate-ahead-", dir=BPFFS))
    try:
        pins = Pins(place)
        pins.make(table_sizes({}))
        jobs = [
            msgspec.structs.replace(
                pins._job(text, {"HAVE_SET_RETVAL": have}), folder=f"{place}/{number}", kept=folder
            )
            for number, (text, have) in enumerate(
                [(SOCK, "1"), (LB, "1"), *((text, "0") for text in EDT.values())]
            )
        ]
        missing = [job for job in jobs if module.kept(Path(folder), job.key()) is None]
        if not missing:
            return 0
        sys.stdin = _Input(msgspec.json.encode(missing))
        return module.main()
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
