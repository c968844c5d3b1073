"""The rows of `show limits`, from the pinned tables: right with the agent alive or dead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bandwidth.annotations import Direction
from bandwidth.book import Book, Tables, rows
from bandwidth.plan import is_cgroup
from bpf.layout import Limit, LimitState, PodLimits
from bpf.pins import Pins
from lb.address import Address, show
from lb.limits.measure import Sample

TEXTS = {
    LimitState.FREE: "not enforced: being set up",
    LimitState.ENFORCED: "enforced",
    LimitState.NO_FQ: "not enforced: no fq in this kernel",
    LimitState.HOST_NETWORK: "not enforced: the pod is on the host's network, "
    "where only egress is limited, and by its cgroup",
    LimitState.NO_DEVICE: "not enforced: no device for it, see tidegate status",
    LimitState.NO_ADDRESS: "not enforced: the pod has no address yet",
    LimitState.NOT_HELD: "not enforced: measured, packets leave before their time",
}

_SUMMED = ("bytes", "delayed", "marked", "dropped")


def tables(pins: Pins) -> Tables:
    """The pinned ones. Raises OSError."""
    return Tables(pins.open_array("limits"), pins.open_hash("pods"), pins.open_hash("limit_names"))


def limits(found: Tables) -> list[dict[str, Any]]:
    """One row a pod, both directions in it. Raises OSError."""
    result: dict[tuple[str, str], dict[str, Any]] = {}
    addresses = dict(_addresses(found))
    for owner, (number, bits, entry) in sorted(rows(found).items()):
        row = result.setdefault((owner.namespace, owner.pod), _row(owner.namespace, owner.pod))
        row["address"] = row["address"] or ",".join(addresses.get(number, []))
        row[f"{owner.direction}_bits_per_second"] = bits
        state = TEXTS[LimitState(entry.state)]
        if row["state"] in ("", "enforced"):
            row["state"] = state
        row[str(owner.direction)] = {"state": state, **counts(entry)}
    return list(result.values())


def _row(namespace: str, pod: str) -> dict[str, Any]:
    none = {f"{direction}_bits_per_second": None for direction in Direction}
    return {"namespace": namespace, "pod": pod, "address": "", **none, "state": ""}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a table: rates in words, counts of both directions together."""
    both = [row[direction] for direction in map(str, Direction) if direction in row]
    sums = {
        name: sum(one[name] for one in both) for name in ("bytes", "delayed", "marked", "dropped")
    }
    rates = {d: _in_words(row[f"{d}_bits_per_second"]) for d in map(str, Direction)}
    return row | rates | sums | {"pod": f"{row['namespace']}/{row['pod']}"}


def _in_words(bits: int | None) -> str | None:
    """`10 Mbit/s`."""
    if bits is None:
        return None
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if bits >= size:
            return f"{bits / size:g} {unit}bit/s"
    return f"{bits} bit/s"


def counts(entry: Limit) -> dict[str, int]:
    """What a limit has done. `bytes` are of frames; `waited_ns` is the sum over all packets."""
    return {
        "packets": entry.packets,
        "bytes": entry.octets,
        "delayed": entry.delayed,
        "delayed_bytes": entry.delayed_octets,
        "waited_ns": entry.waited,
        "overtook": entry.overtook,
        "marked": entry.marked,
        "dropped": entry.dropped,
        "dropped_bytes": entry.dropped_octets,
        "unshaped_bytes": max(0, entry.named - entry.octets - entry.dropped_octets),
    }


def _addresses(found: Tables) -> Iterator[tuple[int, list[str]]]:
    texts: dict[int, list[str]] = {}
    for key, value in sorted(found.pods.items()):
        both = PodLimits.unpack(value)
        for number in {both.egress, both.ingress} - {0}:
            text = f"cgroup {int.from_bytes(key[4:])}" if is_cgroup(key) else show(Address(key))
            texts.setdefault(number, []).append(text)
    yield from texts.items()


def samples(book: Book, found: Tables) -> list[Sample]:
    """What each limit in force has counted. Raises OSError."""
    entries = [Limit.unpack(found.limits.read(held.number)) for held in book.held.values()]
    return [Sample(entry.delayed, entry.octets) for entry in entries]
