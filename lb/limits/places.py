"""The devices that bandwidth limits need, and the programs and queues on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bandwidth.annotations import Direction
from bandwidth.plan import Owner, Pod, Wanted
from bandwidth.queues import OURS, choose, is_ours
from bpf import netlink, qdisc, tc
from bpf.layout import LimitState

_PROBLEM = (OSError, tc.NetlinkError)


class Places(NamedTuple):
    """Devices by what they do: name pods, send to pods, send away from the node."""

    naming: frozenset[str] = frozenset()
    towards: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()

    def hooks(self, device: str) -> tuple[tc.Hook, ...]:
        """The programs of a device."""
        both = ((tc.LEAVING_HOOK, self.leaving), (tc.POD_HOOK, self.towards),
                (tc.NAMING_HOOK, self.naming))  # fmt: skip
        return tuple(hook for hook, devices in both if device in devices)

    def paced(self) -> frozenset[str]:
        """Those that need a queue which keeps to departure times."""
        return self.towards | self.leaving


def places(
    pods: Iterable[Pod],
    wanted: Mapping[Owner, Wanted],
    leaving: Collection[str],
    to_pod: Callable[[bytes], Collection[str]],
    *,
    within_node: bool,
) -> Places:
    """Which devices are needed. `to_pod`: those that lead to an address."""
    active = {owner for owner, one in wanted.items() if one.fault is None}
    any_egress = any(owner.direction is Direction.EGRESS for owner in active)
    naming: set[str] = set()
    towards: set[str] = set()
    for pod in pods:
        egress = Owner(pod.namespace, pod.name, Direction.EGRESS) in active
        ingress = Owner(pod.namespace, pod.name, Direction.INGRESS) in active
        ingress |= within_node and any_egress and not pod.is_host_network
        if egress or ingress:
            devices = {name for one in pod.addresses for name in to_pod(one)} - set(leaving)
            naming |= devices if egress else set()
            towards |= devices if ingress else set()
    return Places(frozenset(naming), frozenset(towards), frozenset(leaving if any_egress else ()))


def state(
    one: Wanted, direction: Direction, devices: Collection[str], here: Places, bad: Collection[str]
) -> LimitState:
    """Is this limit in force? `devices` lead to the pod; `bad` ones lack a program or the queue."""
    if one.fault is not None:
        return one.fault
    needed = here.naming if direction is Direction.EGRESS else here.towards
    through = set(devices) & needed
    if direction is Direction.EGRESS:
        through |= here.leaving if through and here.leaving else {""}
    if not through or through & {"", *bad}:
        return LimitState.NO_DEVICE
    return LimitState.ENFORCED


def put(here: Places, programs: Path) -> dict[str, str]:
    """Sees to it that exactly these places have what they need; what failed, by device.

    Raises OSError, NetlinkError where nothing can be found out.
    """
    indexes = tc.indexes()
    carrying = tc.carriers(tc.BANDWIDTH_HOOKS)
    queues = qdisc.queues()
    errors: dict[str, str] = {}
    for name in sorted({*here.naming, *here.paced()}):
        try:
            if name in here.paced():
                _queue(indexes[name], queues.get(indexes[name], []))
            tc.attach(name, programs, here.hooks(name))
        except (*_PROBLEM, KeyError) as error:
            errors[name] = f"{name}: {error}"
    for name in carrying:
        _leave(name, here.hooks(name), errors)
    for name, index in indexes.items():
        if name not in here.paced() and is_ours(queues.get(index, [])):
            try:
                qdisc.take_off(index, OURS)
            except OSError as error:
                errors[name] = f"{name}: {error}"
    return errors


def _queue(index: int, queues: Sequence[qdisc.Queue]) -> None:
    choice = choose(queues)
    if choice.fault:
        raise OSError(16, choice.fault)
    for step in choice.steps:
        qdisc.put(index, step)


def _leave(name: str, hooks: Collection[tc.Hook], errors: dict[str, str]) -> None:
    unwanted = [hook for hook in tc.BANDWIDTH_HOOKS if hook not in hooks]
    try:
        tc.detach(name, unwanted)
    except _PROBLEM as error:
        errors.setdefault(name, f"{name}: could not detach: {error}")


def missing(here: Places, programs: Path) -> list[str]:
    """A line for each program or queue that somebody took off. Raises OSError, NetlinkError."""
    indexes, queues, lines = tc.indexes(), qdisc.queues(), []
    for name in sorted({*here.naming, *here.paced()}):
        hooks = here.hooks(name)
        there = tc.attached(name, hooks)
        lines += [
            f"{program} is detached from {name}"
            for program, number in tc.wanted(programs, hooks).items()
            if there.get(program) != number
        ]
        if name in here.paced() and (
            name not in indexes or choose(queues.get(indexes[name], [])) != ((), "")
        ):
            lines.append(f"{name} has no fq any more")
    return lines


def devices_to(addresses: Iterable[bytes]) -> set[str]:
    """The devices that lead to any of these. Raises OSError, NetlinkError."""
    return {name for one in addresses for name in netlink.devices_to(one)}
