"""The devices that bandwidth limits need, and the programs and queues on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bandwidth.annotations import Direction
from bandwidth.plan import Owner, Pod, Wanted, is_cgroup
from bandwidth.queues import OURS, Choice, choose, is_ours
from bpf import qdisc, tc
from bpf.layout import LimitState


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

    def all(self) -> list[str]:
        """Every device among them."""
        return sorted(self.naming | self.paced())

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
        ingress |= within_node and any_egress
        if (egress or ingress) and not pod.is_host_network:
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
    by_cgroup = any(map(is_cgroup, one.addresses))
    through = set(here.leaving if by_cgroup else set(devices) & needed)
    if direction is Direction.EGRESS:
        through |= here.leaving if through and here.leaving else {""}
    if not through or through & {"", *bad}:
        return LimitState.NO_DEVICE
    return LimitState.ENFORCED


def put(here: Places, programs: Path) -> dict[str, str]:
    """Sees to it that exactly these places have what they need; what failed, by device.

    Raises OSError, NetlinkError where nothing can be found out.
    """
    indexes, queues = tc.indexes(), qdisc.queues()
    there = tc.in_force(tc.BANDWIDTH_HOOKS)
    errors: dict[str, str] = {}
    for name in here.all():
        try:
            if name in here.paced():
                _queue(indexes[name], queues.get(indexes[name], []))
            if not _in_force(there.get(name, {}), programs, here.hooks(name)):
                tc.attach(name, tc.pins(programs, *here.hooks(name)))
        except (OSError, tc.NetlinkError, KeyError) as error:
            errors[name] = f"{name}: {error}"
    _leave(here, there, errors)
    for name, index in indexes.items():
        if name not in here.paced() and is_ours(queues.get(index, [])):
            qdisc.take_off(index, OURS)
    return errors


def _in_force(there: Mapping[str, int], programs: Path, hooks: Collection[tc.Hook]) -> bool:
    wanted = tc.wanted(tc.pins(programs, *hooks))
    return all(there.get(name) == number for name, number in wanted.items())


def _queue(index: int, queues: Sequence[qdisc.Queue]) -> None:
    choice = choose(queues)
    if choice.fault:
        raise OSError(16, choice.fault)
    for step in choice.steps:
        qdisc.put(index, step)


def _leave(here: Places, there: Mapping[str, Collection[str]], errors: dict[str, str]) -> None:
    """Programs that are where nobody needs them go."""
    for name, attached in there.items():
        wanted = here.hooks(name)
        unwanted = [
            hook
            for hook in tc.BANDWIDTH_HOOKS
            if hook not in wanted and hook.program.name in attached
        ]
        if unwanted:
            try:
                tc.detach(name, unwanted)
            except (OSError, tc.NetlinkError) as error:
                errors.setdefault(name, f"{name}: could not detach: {error}")


def missing(here: Places, programs: Path) -> list[str]:
    """A line for each program or queue that somebody took off. Raises OSError, NetlinkError."""
    indexes, queues, lines = tc.indexes(), qdisc.queues(), []
    there = tc.in_force(tc.BANDWIDTH_HOOKS)
    for name in here.all():
        lines += [
            f"{program} is detached from {name}"
            for program, number in tc.wanted(tc.pins(programs, *here.hooks(name))).items()
            if there.get(name, {}).get(program) != number
        ]
        own = queues.get(indexes[name], []) if name in indexes else []
        if name in here.paced() and choose(own) != Choice():
            lines.append(f"{name} has no fq any more")
    return lines


def carriers() -> list[str]:
    """The devices with a program or a queue of ours. Raises OSError, NetlinkError."""
    queues = qdisc.queues()
    paced = {name for name, index in tc.indexes().items() if is_ours(queues.get(index, []))}
    return sorted({*tc.carriers(*tc.BANDWIDTH_HOOKS), *paced})


def held_back(here: Places) -> int:
    """Packets that the queues of these places made wait so far. Raises OSError, NetlinkError."""
    indexes, counts = tc.indexes(), qdisc.held_back()
    return sum(counts.get(indexes[name], 0) for name in here.paced() if name in indexes)
