"""Reads a ring buffer of the kernel (Linux 5.8), by libbpf's own reader.

One reader at a time: what it has read is gone for all others. Not for what the bytes mean.
"""

from __future__ import annotations

import ctypes
import os

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Ring:
    """The one behind a descriptor, which may be closed meanwhile. Raises OSError."""

    def __init__(self, fd: int) -> None:
        self._lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        self._lib.ring_buffer__new.restype = ctypes.c_void_p
        self._lib.ring_buffer__free.restype = None
        self._read: list[bytes] = []
        self._callback = _SAMPLE(self._sample)
        made = self._lib.ring_buffer__new(fd, self._callback, None, None)
        if not made:
            code = ctypes.get_errno()
            raise OSError(code, f"ring buffer: {os.strerror(code)}")
        self._ring = ctypes.c_void_p(made)

    def _sample(self, _: int, data: int, size: int) -> int:
        self._read.append(ctypes.string_at(data, size))
        return 0

    def poll(self, seconds: float) -> list[bytes]:
        """What came; waits for it if there is nothing. Raises OSError, also where interrupted."""
        self._read = []
        result = self._lib.ring_buffer__poll(self._ring, int(seconds * 1000))
        if result < 0:
            raise OSError(-result, f"poll: {os.strerror(-result)}")
        return self._read

    def close(self) -> None:
        """The memory goes; the map stays."""
        self._lib.ring_buffer__free(self._ring)
