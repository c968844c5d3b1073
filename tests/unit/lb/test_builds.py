"""A device gets the build that says of it what detectLocalMode does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpf.texts import FOREIGN_POD, LB, LOCAL_LB, POD
from lb import builds
from lb.local import Detection, Mode

FOLDERS = {text: Path(f"/{n}") for n, text in enumerate((LB, POD, LOCAL_LB, FOREIGN_POD))}
BRIDGE, PREFIX = Detection(Mode.BRIDGE, (), "cni0"), Detection(Mode.PREFIX, (), "v-")
BY_ADDRESS = Detection(Mode.CLUSTER_CIDR)

CASES = [
    # detection, device, is it a pod's where outside traffic enters, and among pods' devices
    (BY_ADDRESS, "eth0", False, True),
    (BY_ADDRESS, "cni0", False, True),
    (BRIDGE, "cni0", True, True),
    (BRIDGE, "cni01", False, False),
    (PREFIX, "v-web", True, True),
    (PREFIX, "veth1", False, False),
]


@pytest.mark.parametrize(("detection", "device", "uplink", "pods"), CASES)
def test_which_build(detection: Detection, device: str, *, uplink: bool, pods: bool) -> None:
    """Of both kinds of device; only what is needed is compiled."""
    extra = builds.texts(detection)
    assert extra == ([] if detection is BY_ADDRESS else [LOCAL_LB, FOREIGN_POD])
    folders = {text: FOLDERS[text] for text in (LB, POD, *extra)}
    outside, inside = builds.of_uplinks(folders, detection), builds.of_pods(folders, detection)
    assert outside.is_other(device) is uplink
    assert inside.is_other(device) is not pods
    (lb_in,) = (path for hook, path in outside.of(device).items() if hook.program.name == "lb_in")
    (pod_in,) = (path for hook, path in inside.of(device).items() if hook.program.name == "pod_in")
    assert lb_in.parent == FOLDERS[LOCAL_LB if uplink else LB]
    assert pod_in.parent == FOLDERS[POD if pods else FOREIGN_POD]


def test_without_pods_devices_there_is_nothing_for_them() -> None:
    """`--pod-devices off`."""
    assert builds.of_pods({LB: FOLDERS[LB]}, BRIDGE).of("cni0") == {}
