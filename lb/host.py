"""What a configuration asks of the host beside services: conntrack's limits, the agent's score.

What cannot be had is told and never ends the agent: services do not depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lb import logs
from lb.kubeproxy.conntrack import MAX

log = logging.getLogger("tidegate")

_SETTINGS = Path("/proc/sys/net/netfilter")
_BUCKETS = Path("/sys/module/nf_conntrack/parameters/hashsize")
_PER_BUCKET = 4
"""Connections of a bucket of the hash, where its size is raised, as kube-proxy has it."""
Write = Callable[[Path, str], object]


def protect(score: int) -> None:
    """From the kernel's hand when memory runs out; proc(5), oom_score_adj."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError as error:
        log.log(logs.V2, "oomScoreAdj %d: %s", score, error.strerror)


def set_conntrack(
    wanted: Mapping[str, int],
    *,
    settings: Path = _SETTINGS,
    buckets: Path = _BUCKETS,
    write: Write = Path.write_text,
) -> list[str]:
    """See to it that these settings have these values; a line for each that could not be set.

    What has its value is not written: so an unprivileged agent finds what `--init-only` did.
    """
    faults = []
    for name, value in wanted.items():
        fault = _set(settings / name, value, write)
        if name == MAX and not fault and (_value(buckets) or value) < value // _PER_BUCKET:
            fault = _set(buckets, value // _PER_BUCKET, write)
        faults += fault
    for line in faults:
        log.error("conntrack: %s", line)
    return faults


def _set(path: Path, value: int, write: Write) -> list[str]:
    before = _value(path)
    if before == value:
        return []
    try:
        write(path, str(value))
    except OSError as error:
        return [f"could not set {path} to {value}: {error.strerror or error}"]
    log.info("%s is %d now; it was %s", path, value, before)
    return []


def _value(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def feature(wanted: Mapping[str, int], faults: list[str]) -> dict[str, Any]:
    """The entry in `status`; empty where nothing is asked for."""
    if not wanted:
        return {}
    state = {"state": "degraded", "reason": "; ".join(faults)} if faults else {"state": "on"}
    return {"conntrack": state}
