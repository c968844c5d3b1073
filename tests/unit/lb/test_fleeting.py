"""Which mounts of a bpffs outlive the agent that made them: those that the node sees, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.fleeting import goes_with_us, is_shared

BPF = Path("/sys/fs/bpf")
HOST = """
25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
26 25 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
"""
BELOW = "44 26 0:35 / /sys/fs/bpf rw,relatime {}- bpf bpf rw,mode=700\n"


@pytest.mark.parametrize(
    ("optional", "is_the_nodes"),
    [
        ("shared:12 ", True),  # on the node itself, and Bidirectional in a pod
        ("shared:12 master:3 ", True),
        ("", False),  # a container's own
        ("master:3 ", False),  # HostToContainer, mounted in the container
        ("unbindable ", False),
    ],
)
def test_a_mount_of_a_peer_group_is_seen_elsewhere(optional: str, *, is_the_nodes: bool) -> None:
    """Whatever lies below it counts likewise."""
    text = HOST.strip() + "\n" + BELOW.format(optional)
    assert is_shared(text, BPF) is is_the_nodes
    assert is_shared(text, BPF / "tidegate" / "maps") is is_the_nodes
    assert is_shared(text, Path("/sys/fs/bpf-other"))


def test_of_two_mounts_on_one_place_the_upper_counts() -> None:
    """As the kernel resolves the path."""
    text = HOST.strip() + "\n" + BELOW.format("shared:3 ") + BELOW.format("")
    assert not is_shared(text, BPF)


@pytest.mark.parametrize(
    ("optional", "environment", "first", "goes"),
    [
        ("", {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "mnt:[1]", True),
        ("", {}, "mnt:[2]", True),
        ("", {}, "mnt:[1]", False),
        ("", {}, None, False),
        ("shared:3 ", {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "mnt:[2]", False),
    ],
    ids=["pod", "container", "node", "unknown", "propagated"],
)
def test_what_goes_with_the_agent(
    tmp_path: Path, optional: str, environment: dict[str, str], first: str | None, *, goes: bool
) -> None:
    """In a pod, or in a mount namespace that is not the machine's, unless others see the mount."""
    for process, namespace in (("self", "mnt:[1]"), ("1", first)):
        (tmp_path / process / "ns").mkdir(parents=True)
        if namespace is not None:
            (tmp_path / process / "ns" / "mnt").symlink_to(namespace)
    (tmp_path / "self" / "mountinfo").write_text(HOST.strip() + "\n" + BELOW.format(optional))
    assert goes_with_us(BPF, environment, tmp_path) is goes
