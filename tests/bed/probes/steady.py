"""TCP connects to ADDRESS PORT, one every SECONDS, until SIGTERM; each sends a line and hears one.

Then prints

    {"connects": 600, "failed": ["12.3 s: ECONNREFUSED"], "longest": 0.004}

`longest` is that of the slowest connect with its answer, in seconds; one that took 2 s has failed.
"""
# ruff: noqa: T201 - to print is what a probe is for

import errno
import json
import signal
import socket
import sys
import time
from types import FrameType

address, port, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ended = False


def end(_number: int, _frame: FrameType | None) -> None:
    """After the present connect."""
    global ended  # noqa: PLW0603
    ended = True


signal.signal(signal.SIGTERM, end)
begin, connects, longest, failed = time.monotonic(), 0, 0.0, []
while not ended:
    start = time.monotonic()
    connects += 1
    try:
        with socket.create_connection((address, port), timeout=2.0) as client:
            client.sendall(b"steady\n")
            if b"steady" not in client.recv(100):
                raise ConnectionResetError(errno.ECONNRESET, "no answer")
    except OSError as error:
        failed.append(f"{start - begin:.1f} s: {errno.errorcode.get(error.errno or 0, str(error))}")
    longest = max(longest, time.monotonic() - start)
    time.sleep(pause)
print(json.dumps({"connects": connects, "failed": failed, "longest": longest}))
