"""What the verifier has to follow of each program: older kernels see several times as much."""

from __future__ import annotations

from pathlib import Path

from bpf import libbpf
from tests.packet.bench import Bench

LIMIT = 125_000
"""Instructions. Kernels before 6.4 followed up to 7 times as many, and refuse a million."""


def followed(program: Path) -> int:
    """Instructions that the verifier followed: `verified_insns` of proc(5), fdinfo."""
    descriptor = libbpf.open_pin(str(program))
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        libbpf.close(descriptor)
    return next((int(line.split()[1]) for line in lines if line.startswith("verified_insns")), 0)


def test_no_program_comes_near_what_older_kernels_refuse(bench: Bench) -> None:
    """Each program, of what comes in from outside and from pods, and of XDP."""
    found = [
        (path.name, followed(path))
        for path in bench.pins.folder.glob("programs/*/*")
        if path.name != "tails"
    ]
    assert {"lb_in", "lb_out", "lb_begin", "lb_dsr", "pod_in", "lb_xdp"} <= dict(found).keys()
    assert all(count > 0 for _, count in found)
    assert [one for one in found if one[1] > LIMIT] == []
