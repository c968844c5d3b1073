"""`python -m tests.vm.compiled FOLDER RELEASE`: the programs, compiled here for another kernel.

The compiler is this machine's either way, and what it makes depends on the text alone; emulated it
takes minutes. The other kernel still verifies and loads all of it. They are kept as an agent keeps
them (`bpf.code`), under the names that one with default sizes looks for on kernel RELEASE.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bpf import code, texts
from bpf.module import Text
from bpf.pins import BPFFS, Pins, mount
from lb.config import table_sizes

_BALANCING = {"HAVE_SET_RETVAL": "1"}
"""Linux 5.18, as all kernels that the tests boot."""
_PACING = {"HAVE_SET_RETVAL": "0"}
TEXTS: tuple[tuple[Text, Mapping[str, str]], ...] = (
    *((text, _BALANCING) for text in (texts.SOCK, texts.LB, texts.POD, texts.XDP)),
    *((text, _PACING) for text in texts.EDT.values()),
    (texts.BBR, _PACING),
)
"""What an agent may load, with its constants."""


def keys() -> list[str]:
    """The names of all, as this kernel's agents look for them."""
    sizes = {f"MAX_{name}": str(count) for name, count in table_sizes({}).items()}
    return [
        code.digest(text.source, {**defines, **dict(text.defines), **sizes})
        for text, defines in TEXTS
    ]


def main() -> None:
    """All that is missing in FOLDER."""
    kept, release, own = Path(sys.argv[1]), sys.argv[2], platform.release
    here = keys()
    platform.release = lambda: release
    there = keys()
    if all((kept / key).exists() for key in there):
        return
    platform.release = own
    mount(BPFFS)
    with tempfile.TemporaryDirectory(prefix="tidegate-vm-", dir=BPFFS) as folder:
        pins = Pins(Path(folder), kept)
        pins.make(table_sizes({}))
        for text, defines in TEXTS:
            pins.compile([text], defines).finish()
    for mine, theirs in zip(here, there, strict=True):
        shutil.copy2(kept / mine, kept / theirs)


if __name__ == "__main__":
    main()
