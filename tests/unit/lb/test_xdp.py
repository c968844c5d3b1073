"""What the XDP program is told of a device, and what status says of devices without it."""

from __future__ import annotations

import errno

import pytest

from bpf.layout import Device, DeviceFlag
from bpf.xdp import Link, Mode
from lb.xdp import entry, feature, why_not

MAC = bytes(range(6))
E, S, R, G, V = (
    DeviceFlag.ETHERNET,
    DeviceFlag.SENDS,
    DeviceFlag.RETURNS,
    DeviceFlag.GENERIC,
    DeviceFlag.VIRTUAL,
)


@pytest.mark.parametrize(
    ("ethernet", "sends", "veth", "mode", "flags"),
    [
        (True, True, False, Mode.NATIVE, E | S | R),
        (True, False, False, Mode.NATIVE, E | R),  # it sends back what came, and that is all
        (True, None, False, Mode.NATIVE, E | R),  # a kernel that does not tell
        (True, True, True, Mode.NATIVE, E | S | V),  # a veth is sent to, also by itself
        (True, False, True, Mode.NATIVE, E | V),  # its other end does not listen
        (True, False, True, Mode.GENERIC, E | G | V),
        (True, True, False, Mode.GENERIC, E | S | R | G | V),
        (True, True, False, None, E | S | R),
        (False, False, False, None, R),  # a tunnel: nothing can be sent there
    ],
)
def test_entry(
    *, ethernet: bool, sends: bool | None, veth: bool, mode: Mode | None, flags: int
) -> None:
    """Only what surely arrives is promised to the program."""
    link = Link(7, "eth0", MAC, is_ethernet=ethernet, sends=sends, is_veth=veth)
    assert entry(link, mode) == Device(MAC, flags)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EBUSY, "somebody else's XDP program is there"),
        (errno.EEXIST, "somebody else's XDP program is there"),
        (errno.EOPNOTSUPP, "its driver has no native XDP"),
        (errno.ERANGE, "native XDP: attach: too large"),
    ],
)
def test_why_not(code: int, words: str) -> None:
    """An operator reads what stands in the way."""
    assert why_not(OSError(code, "attach: too large"), Mode.NATIVE) == words


@pytest.mark.parametrize(
    ("wanted", "modes", "reasons", "state"),
    [
        ("auto", {"a": Mode.NATIVE}, {}, "on"),
        ("auto", {"a": Mode.GENERIC}, {"a": "no native"}, "on"),
        ("auto", {}, {"a": "taken"}, "off"),
        ("auto", {}, {}, "off"),
        ("native", {}, {"a": "no native"}, "degraded"),
        ("native", {"a": Mode.NATIVE}, {"b": "taken"}, "degraded"),
        ("off", {}, {}, "off"),
    ],
)
def test_feature(wanted: str, modes: dict[str, Mode], reasons: dict[str, str], state: str) -> None:
    """Serving by tc is a fault only where XDP was asked for; whatever is not there has a reason."""
    said = feature(wanted, modes, reasons)
    assert said["state"] == state
    assert said["devices"] == {name: mode.value for name, mode in modes.items()}
    for name, reason in reasons.items():
        assert f"{name}: {reason}" in said["reason"]
    assert state == "on" or said["reason"]
