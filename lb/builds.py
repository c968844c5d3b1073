"""Which build of the programs a device gets, by what detectLocalMode says of it.

The kind of a device says whether pods are behind it: where outside traffic enters there are none
but those whose addresses are known. Only where the operator goes by devices may it be otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bpf import tc
from bpf.module import Text
from bpf.texts import FOREIGN_POD, LB, LOCAL_LB, POD
from lb.local import Detection, Local, local


def texts(detection: Detection) -> list[Text]:
    """What is to be compiled for it, beside the usual ones. The second is for pods' devices."""
    return [LOCAL_LB, FOREIGN_POD] if detection.by_device else []


class Builds:
    """Programs for one kind of device, and those for the devices that are of the other nature."""

    def __init__(
        self,
        usual: tc.Pins,
        other: tc.Pins | None = None,
        is_other: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._usual, self._other, self._is_other = usual, other, is_other

    @property
    def by_name(self) -> bool:
        """Does it matter what a device is called?"""
        return self._other is not None

    def of(self, device: str) -> tc.Pins:
        """The programs for a device of that name, where a bridge's stands for its ports'."""
        return self._other if self._other is not None and self._is_other(device) else self._usual

    def is_other(self, device: str) -> bool:
        """Is it one of those?"""
        return self._other is not None and self._is_other(device)


def of_uplinks(folders: Mapping[Text, Path], detection: Detection) -> Builds:
    """For devices where traffic from outside enters."""
    usual = tc.pins(folders[LB], *tc.DEVICE_HOOKS)
    if LOCAL_LB not in folders:
        return Builds(usual)
    pods = local(detection, ())
    return Builds(usual, tc.pins(folders[LOCAL_LB], *tc.DEVICE_HOOKS), lambda one: _has(pods, one))


def of_pods(folders: Mapping[Text, Path], detection: Detection) -> Builds:
    """For the node's ends of pods' devices; empty where nobody wants any."""
    if POD not in folders:
        return Builds({})
    answers = tc.pins(folders[LB], tc.LB_OUT)
    usual = answers | tc.pins(folders[POD], tc.POD_IN)
    if FOREIGN_POD not in folders:
        return Builds(usual)
    pods = local(detection, ())
    other = answers | tc.pins(folders[FOREIGN_POD], tc.POD_IN)
    return Builds(usual, other, lambda one: not _has(pods, one))


def _has(pods: Local, device: str) -> bool:
    return bool(pods.devices([device]))
