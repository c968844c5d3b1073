"""Where a connection's hash lies in a service's Maglev ring: the sums of bpf/balance.h, for people.

The program's own choice counts; this only names the slot, and a test holds the two together.
"""

from __future__ import annotations

import struct

from lb.address import Address
from lb.see.frame import Ends

_WORD = 2**64 - 1


def _mix(total: int, value: int) -> int:
    total = (total ^ value) * 0x9E3779B97F4A7C15 & _WORD
    return total ^ total >> 32


def hash_of(ends: Ends, *, client_only: bool) -> int:
    """32 bits, the same on every node; of the client's address alone with session affinity."""
    total = _mix_address(_mix(0, ends.protocol), ends.source)
    if not client_only:
        sport, dport = (int.from_bytes(struct.pack("!H", one), "little") for one in ends[2::2])
        total = _mix(total, sport << 16 | dport)
    return _mix(total, 0) >> 32


def _mix_address(total: int, address: Address) -> int:
    one, two, three, four = struct.unpack("<4I", address)
    return _mix(_mix(total, one << 32 | two), three << 32 | four)


def slot_of(ends: Ends, ring: int, *, client_only: bool) -> tuple[int, int]:
    """Slot and number of slots. `ring`: the service's word, not 0."""
    slots = ring & 0xFFFFFFFF
    return hash_of(ends, client_only=client_only) * slots >> 32, slots
