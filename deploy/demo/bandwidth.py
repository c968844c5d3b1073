"""A pod's bandwidth limit: measured by iperf3 where the kernel has fq; else what is said of it."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator

from bpf.qdisc import has_fq
from deploy.demo.asking import Seen
from deploy.demo.stage import Stage
from tests.bed import until
from tests.bed.manifests import pod

_FRAME, _PAYLOAD = 1514, 1448
"""Octets of a full frame, and of what iperf3 counts of it: TCP over IPv4 with time stamps."""
NO_FQ = "no fq in this kernel"


def rows(stage: Stage) -> Iterator[tuple[str, str, str, Callable[[], Seen]]]:
    """Asked, origin, expected, and how to see it; the last one takes the limit away."""
    if not has_fq():
        shown = functools.partial(_shown, stage, "10M")
        yield ("pod limited to 10 Mbit/s", "tidegate show limits", NO_FQ, shown)
        return
    for megabits in (10, 5):
        sent = functools.partial(_sent, stage, megabits)
        yield (f"pod limited to {megabits} Mbit/s", "pod client-1", f"{megabits} Mbit/s", sent)
    yield ("limit taken away", "pod client-1", "more than 10 Mbit/s", lambda: _sent(stage, None))


def _shown(stage: Stage, egress: str | None) -> Seen:
    """What `show limits` says of client-1."""
    started = time.monotonic()
    _limit(stage, egress)
    seconds = time.monotonic() - started
    state = _states(stage)[0]
    _limit(stage, None)
    return Seen(state.removeprefix("not enforced: "), seconds)


def _sent(stage: Stage, megabits: int | None) -> Seen:
    """iperf3 to the client outside, in frames on the wire, to the nearest fiftieth."""
    client, outside = stage.pods["client-1"], stage.cluster.client
    _limit(stage, f"{megabits}M" if megabits else None)
    server = outside.spawn("iperf3", "-s", ready=lambda one: outside.listens(one, 5201, "tcp6"))
    started = time.monotonic()
    done = client.run("iperf3", "-c", outside.ipv4, "-t", "3", "-O", "1", "-J", timeout=20)
    server.end()
    seconds = time.monotonic() - started
    payload = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
    wire = payload * _FRAME / _PAYLOAD / 1e6
    if megabits is None:
        return Seen("more than 10 Mbit/s" if wire > 10 else f"{wire:.2f} Mbit/s", seconds)
    near = abs(wire - megabits) <= megabits / 50
    return Seen(f"{megabits if near else round(wire, 2)} Mbit/s", seconds)


def _limit(stage: Stage, egress: str | None) -> None:
    one = stage.pods["client-1"]
    with stage.applied():
        stage.manifests.write(
            "limited.yaml", pod(one.name, node="n1", addresses=one.addresses, egress=egress)
        )
    until(lambda: len(_states(stage)) == bool(egress), "the limit", timeout=20)


def _states(stage: Stage) -> list[str]:
    shown = json.loads(stage.agents[0].tidegate("show", "limits", "-o", "json").stdout)
    states = [row["state"] for row in shown]
    return [state for state in states if state != "not enforced: being set up"]
