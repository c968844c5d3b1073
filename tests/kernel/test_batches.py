"""Reading whole tables of the kernel, by batches."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

READ_BACK = """
import ctypes, struct
from bpf import libbpf
from bpf.maps import KernelHash

KEY_SIZE, COUNT = 24, 5
class Options(ctypes.Structure):
    _fields_ = [  # struct bpf_map_create_opts
        ("size", ctypes.c_size_t), ("ids", ctypes.c_uint32 * 5), ("flags", ctypes.c_uint32),
    ]
lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
options = Options(size=ctypes.sizeof(Options), flags={flags})
fd = lib.bpf_map_create({kind}, b"batches", KEY_SIZE, 8, 16, ctypes.byref(options))
assert fd >= 0, ctypes.get_errno()
wanted = {{
    struct.pack("<I20s", 160, bytes(19) + bytes([i])): bytes([i] * 8) for i in range(COUNT)
}}
table = KernelHash(fd)
table.put(wanted)
assert dict(table.items()) == wanted
"""


@pytest.mark.parametrize(
    ("kind", "flags"),  # enum bpf_map_type, BPF_F_NO_PREALLOC
    [pytest.param(1, 1, id="hash"), pytest.param(9, 0, id="lru"), pytest.param(11, 1, id="lpm")],
)
def test_a_batch_stays_within_its_buffers(kind: int, flags: int) -> None:
    """The kernel notes where a batch ended: in an LPM trie that note is as long as a key."""
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK.format(kind=kind, flags=flags)],
        env={**os.environ, "PYTHONMALLOC": "debug"},  # aborts on a byte beyond a buffer
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
