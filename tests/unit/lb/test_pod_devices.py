"""Which devices lead to pods."""

from __future__ import annotations

import pytest

from bpf.netlink import Link
from lb.config import pod_devices
from lb.pod_devices import leads_to_pods

VETH, TAP = Link("v1", "veth", is_ethernet=True), Link("t1", "tun", is_ethernet=True)
TUNNEL = Link("tun0", "tun", is_ethernet=False)
BRIDGE, CARD = Link("cni0", "bridge", is_ethernet=True), Link("eth0", "", is_ethernet=True)
LOOPBACK = Link("lo", "", is_ethernet=False)


@pytest.mark.parametrize(
    ("link", "bridge", "patterns", "leads"),
    [
        (VETH, "", ["auto"], True),
        (TAP, "", ["auto"], True),
        (VETH, "cni0", ["auto"], True),
        (TUNNEL, "", ["auto"], False),
        (BRIDGE, "", ["auto"], False),
        (CARD, "", ["auto"], False),
        (LOOPBACK, "", ["auto", "*"], False),
        (VETH, "", [], False),
        (VETH, "", ["v*"], True),
        (VETH, "", ["t?"], False),
        (VETH, "", ["t?", "auto"], True),
        (CARD, "", ["eth[0-3]"], True),
        (TUNNEL, "", ["tun*"], False),
        (VETH, "cni0", ["cni0"], True),
        (VETH, "", ["cni0"], False),
        (BRIDGE, "", ["cni0"], False),
    ],
)
def test_what_leads_to_pods(link: Link, bridge: str, patterns: list[str], *, leads: bool) -> None:
    """Kinds for auto, names else; a bridge's name is its ports', and no bridge is one itself."""
    assert leads_to_pods(link, bridge, patterns, []) is leads


def test_uplinks_never_do() -> None:
    """Where outside traffic enters other programs have their place."""
    assert not leads_to_pods(VETH, "", ["auto", "v1"], ["v1"])


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("auto", ("auto",)),
        ("off", ()),
        ("", ()),
        ("lxc*, cni0", ("lxc*", "cni0")),
    ],
)
def test_the_flag(text: str, patterns: tuple[str, ...]) -> None:
    """Patterns with commas between them, or none."""
    assert pod_devices(text) == patterns
