"""Which limits a node should have: from its pods to what the tables hold. Pure.

A pod is shaped once per direction, whatever its addresses. A value that does not parse leaves the
last valid one in force; only a missing annotation ends a limit. A pod on the host's network has
no address of its own; what it sends is known by its cgroup, and what it receives is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bandwidth.annotations import Direction, bits
from bpf.layout import Edt, LimitState


class Pod(NamedTuple):
    """A pod of this node. `asked` holds the text of each annotation that it has."""

    namespace: str
    name: str
    addresses: tuple[bytes, ...]
    """16 bytes each, IPv4 v4-mapped."""
    asked: Mapping[Direction, str]
    is_host_network: bool = False
    cgroup: int = 0
    """The id of its cgroup, sought for pods on the host's network only; 0: not found."""


class Owner(NamedTuple):
    """Whose a limit is."""

    namespace: str
    pod: str
    direction: Direction

    def __str__(self) -> str:
        return "/".join(self)


class Wanted(NamedTuple):
    """One limit: bits per second, where, and why not if it cannot be in force."""

    bits: int
    addresses: tuple[bytes, ...]
    """What leads to it: addresses, or a cgroup's key."""
    fault: LimitState | None = None
    malformed: str = ""
    """What is wrong with the annotation, if the value is an earlier one."""


class Plan(NamedTuple):
    """`unlimited`: annotations that never had a valid value, and what is wrong with each."""

    limits: dict[Owner, Wanted]
    unlimited: dict[Owner, str]


def owner_of(text: str) -> Owner:
    """The owner that `str` made this text of. Raises ValueError."""
    namespace, pod, direction = text.split("/")
    return Owner(namespace, pod, Direction(direction))


def plan(pods: Iterable[Pod], before: Mapping[Owner, int]) -> Plan:
    """The limits for these pods; `before` are the rates in force, in bits per second."""
    found = Plan({}, {})
    for pod in pods:
        for direction, text in pod.asked.items():
            owner = Owner(pod.namespace, pod.name, direction)
            malformed = ""
            try:
                rate: int | None = bits(text)
            except ValueError as error:
                rate, malformed = before.get(owner), f"{direction.annotation}: {text!r} {error}"
            if rate is None:
                found.unlimited[owner] = malformed
            else:
                keys = (cgroup_key(pod.cgroup),) if pod.is_host_network else pod.addresses
                found.limits[owner] = Wanted(rate, keys, _fault(pod, direction), malformed)
    return found


def cgroup_key(number: int) -> bytes:
    """Where the limits of a cgroup stand, among those of addresses."""
    return bytes((Edt.CGROUP,)) + number.to_bytes(15)


def is_cgroup(key: bytes) -> bool:
    """Is it that of a cgroup?"""
    return key[0] == Edt.CGROUP


def _fault(pod: Pod, direction: Direction) -> LimitState | None:
    """What keeps a limit from being in force, whatever the node can do."""
    if pod.is_host_network:
        known = pod.cgroup and direction is Direction.EGRESS
        return None if known else LimitState.HOST_NETWORK
    return None if pod.addresses else LimitState.NO_ADDRESS
