"""From a backend's name to its permutation of the slots (Maglev paper, 3.4).

The key of a name is the 128-bit murmur3 of its UTF-8 text under the cluster's seed, 16 bytes in
little-endian order on every machine. Its halves h1 and h2 give, for a table of M slots,

    offset = h1 mod M        skip = h2 mod (M - 1) + 1

and the backend asks for the slots offset, offset + skip, offset + 2 skip, ... (mod M). Turns go
round in the order of h1, so no name is favoured by the alphabet. `_fill.c` computes the same.

Not a secret: murmur3 is no cryptographic hash, and the seed has 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import mmh3

KEY_BYTES = 16


def seed_number(seed: int | bytes) -> int:
    """The seed as murmur3 takes it: a number of 32 bits, or bytes folded to one.

    Raises ValueError for a number outside 0 to 2**32 - 1.
    """
    if isinstance(seed, bytes):
        return mmh3.hash(seed, signed=False)
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed {seed}: must be 0 to 4294967295, or bytes")
    return seed


def keys(names: Sequence[str], seed: int | bytes) -> bytes:
    """The keys of the names, one after the other. Raises ValueError for a bad seed or name."""
    # mmh3 5.3 ends the process at a lone surrogate, so refuse what is no UTF-8 beforehand.
    "".join(names).encode()
    return b"".join(map(mmh3.hash_bytes, names, repeat(seed_number(seed))))


def permutation(name: str, size: int, seed: int | bytes) -> tuple[int, int]:
    """Offset and skip of a name in a table of `size` slots."""
    key = keys([name], seed)
    first, second = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    return first % size, second % (size - 1) + 1
