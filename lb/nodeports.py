"""Which addresses of this node accept node ports: kube-proxy's `nodePortAddresses`, by mode.

Pure. Where no setting is given, iptables and ipvs accept every address of the node, and
nftables its primary ones. `::1` never accepts any; IPv4 loopback does in iptables mode, for
the node's own processes, unless localhost node ports are off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bpf.layout import AddressFlag
from lb.address import MAPPED, Address, Family, Prefix, family, parse_prefix
from lb.errors import BadInput

LOOPBACK = Address(bytes(15) + b"\1")
PRIMARY = "primary"


def accepting(
    held: Collection[Address],
    *,
    setting: Sequence[str],
    mode: str,
    localhost: bool,
    primary: Collection[Address],
) -> dict[Address, int]:
    """The flags (`AddressFlag`) of each address held. Raises BadInput for a bad setting."""
    wanted = list(setting) or ([PRIMARY] if mode == "nftables" else [])
    if PRIMARY in wanted and len(wanted) > 1:
        raise BadInput("nodePortAddresses: `primary` stands alone or not at all")
    ranges = None if PRIMARY in wanted else _ranges(wanted)
    found = {}
    for address in held:
        accepts = address in primary if ranges is None else _in_ranges(address, ranges)
        if _is_loopback(address):
            accepts = accepts and localhost and mode in ("", "iptables")
        if address == LOOPBACK:
            accepts = False
        found[address] = AddressFlag.LOCAL | (AddressFlag.NODE_PORT if accepts else 0)
    return found


def _ranges(setting: Sequence[str]) -> dict[Family, list[Prefix]]:
    found: dict[Family, list[Prefix]] = {Family.IPV4: [], Family.IPV6: []}
    for text in setting:
        prefix = parse_prefix(text)
        found[family(prefix[0])].append(prefix)
    return found


def _in_ranges(address: Address, ranges: dict[Family, list[Prefix]]) -> bool:
    """A family without any range accepts everywhere (as kube-proxy has it)."""
    own = ranges[family(address)]
    return not own or any(address in prefix for prefix in own)


def _is_loopback(address: Address) -> bool:
    return address.startswith(MAPPED + b"\x7f")
