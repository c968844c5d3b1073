"""Which addresses accept node ports: kube-proxy's defaults by mode, and its setting."""

from __future__ import annotations

import pytest

from bpf.layout import AddressFlag
from lb.address import parse, show
from lb.errors import BadInput
from lb.nodeports import accepting

HELD = ["127.0.0.1", "192.0.2.1", "198.51.100.1", "::1", "2001:db8::1", "fe80::1"]
PRIMARY = ["192.0.2.1", "2001:db8::1"]
ALL_BUT_LOOPBACK = "192.0.2.1 198.51.100.1 2001:db8::1 fe80::1"

ROWS = [
    # case, setting, mode, localhost, those that accept
    ("iptables: all", "", "iptables", True, f"127.0.0.1 {ALL_BUT_LOOPBACK}"),
    ("no mode is iptables", "", "", True, f"127.0.0.1 {ALL_BUT_LOOPBACK}"),
    ("localhost off", "", "iptables", False, ALL_BUT_LOOPBACK),
    ("ipvs: all but loopback", "", "ipvs", True, ALL_BUT_LOOPBACK),
    ("nftables: primary", "", "nftables", True, "192.0.2.1 2001:db8::1"),
    ("primary in any mode", "primary", "iptables", True, "192.0.2.1 2001:db8::1"),
    ("one range", "198.51.100.0/24", "iptables", True, "198.51.100.1 2001:db8::1 fe80::1"),
    ("both families", "192.0.2.0/24,2001:db8::/32", "", True, "192.0.2.1 2001:db8::1"),
    ("a range of none", "10.0.0.0/8,fd00::/8", "", True, ""),
    ("loopback by range", "127.0.0.0/8,fd00::/8", "", True, "127.0.0.1"),
    ("loopback by range, not in nftables", "127.0.0.0/8,fd00::/8", "nftables", True, ""),
    ("::1 never", "0.0.0.0/0,::/0", "", True, f"127.0.0.1 {ALL_BUT_LOOPBACK}"),
]


@pytest.mark.parametrize(
    ("setting", "mode", "localhost", "expected"),
    [row[1:] for row in ROWS],
    ids=[r[0] for r in ROWS],
)
def test_who_accepts(setting: str, mode: str, localhost: bool, expected: str) -> None:  # noqa: FBT001
    """Each mode and setting lets in exactly these; every address stays a local one."""
    found = accepting(
        [parse(text) for text in HELD],
        setting=[text for text in setting.split(",") if text],
        mode=mode,
        localhost=localhost,
        primary=[parse(text) for text in PRIMARY],
    )
    assert " ".join(show(a) for a, f in found.items() if f & AddressFlag.NODE_PORT) == expected
    assert [show(a) for a, f in found.items() if f & AddressFlag.LOCAL] == HELD


@pytest.mark.parametrize("setting", [["primary", "10.0.0.0/8"], ["10.0.0.0"], ["x/8"]])
def test_a_bad_setting_is_refused(setting: list[str]) -> None:
    """`primary` beside ranges, or what is no range, is an error and not a guess."""
    with pytest.raises(BadInput):
        accepting([], setting=setting, mode="", localhost=True, primary=[])
