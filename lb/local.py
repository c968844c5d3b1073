"""Which packets come from a pod of this cluster: kube-proxy's `detectLocalMode`, all four. Pure.

Decides two things for clients whose sockets are not seen: whether a cluster IP keeps the source
address, and whether an external policy Local is passed by. Sockets need no such guess: a pod's
and the node's own processes are known by their cgroup.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import msgspec

from lb.address import Address, Family, Prefix, family


class Mode(StrEnum):
    """kube-proxy's words."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE = "BridgeInterface"
    PREFIX = "InterfaceNamePrefix"


class Detection(msgspec.Struct, frozen=True):
    """How pods are told apart: what the operator asked for, before the Node object is known."""

    mode: Mode = Mode.CLUSTER_CIDR
    cluster_cidrs: tuple[Prefix, ...] = ()
    device: str = ""
    """The bridge's name, or the prefix of names."""

    @property
    def by_device(self) -> bool:
        """Do devices say it, and not addresses?"""
        return self.mode in (Mode.BRIDGE, Mode.PREFIX)


class Local(msgspec.Struct, frozen=True):
    """What makes a source local here: its address in a family's prefix, or its device."""

    prefixes: Mapping[Family, Prefix] = {}
    device: str = ""
    whole_name: bool = True
    """`device` is a name; else the beginning of names."""

    def __str__(self) -> str:
        """For the log."""
        if self.device:
            return self.device + ("" if self.whole_name else "*")
        return ", ".join(map(str, self.prefixes.values())) or "not known by their addresses"

    def knows(self, which: Family) -> bool:
        """Can a pod be told from others in this family?"""
        return bool(self.device) or which in self.prefixes

    def is_pod(self, source: Address, device: str) -> bool:
        """Does a packet with this source, that comes in by this device, come from a pod?

        Never where pods cannot be told from others.
        """
        if self.device:
            return device == self.device if self.whole_name else device.startswith(self.device)
        prefix = self.prefixes.get(family(source))
        return prefix is not None and source in prefix

    def devices(self, present: Collection[str]) -> frozenset[str]:
        """Those of the devices present that bring pods' packets; none if addresses decide."""
        if not self.device:
            return frozenset()
        match = str.__eq__ if self.whole_name else str.startswith
        return frozenset(one for one in present if match(one, self.device))


def local(detection: Detection, pod_cidrs: Sequence[Prefix]) -> Local:
    """The rule on a node whose Node object has these `spec.podCIDRs`.

    Of several prefixes of a family the first counts, as in kube-proxy.
    """
    match detection.mode:
        case Mode.BRIDGE | Mode.PREFIX as mode:
            return Local(device=detection.device, whole_name=mode is Mode.BRIDGE)
        case Mode.CLUSTER_CIDR:
            return Local(_first(detection.cluster_cidrs))
        case Mode.NODE_CIDR:
            return Local(_first(pod_cidrs))


def _first(prefixes: Sequence[Prefix]) -> dict[Family, Prefix]:
    found: dict[Family, Prefix] = {}
    for prefix in prefixes:
        found.setdefault(family(prefix[0]), prefix)
    return found
