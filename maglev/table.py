"""Builds Maglev tables: arrays of backend numbers, one for each slot.

A table is a function of the *set* of backends, the size and the seed: the order in which
backends are given does not matter. The work is done by `_fill.c`; this module hashes the names
and hands over plain arrays.

Not for publishing a table: `fill` writes into any buffer, and whose memory that is, and when
readers may see it, is the caller's business.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from maglev import _fill, permutation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
"""Primes just below powers of two, as Cilium offers them."""

SLOTS_PER_BACKEND = 100
"""With so many slots, shares are right to about 1 % (Maglev paper, 5.3)."""


class Backend(NamedTuple):
    """One backend. `name` decides its slots, so it must be stable and unique.

    `weight` is 0 to 65535; 0: in no slot. `number` (32 bits) is what its slots hold.
    """

    name: str
    weight: int
    number: int


class Prepared(NamedTuple):
    """Backends with their names hashed: keep it to build again, or at other sizes, faster."""

    keys: bytes
    weights: array[int]
    numbers: array[int]


def prepare(backends: Iterable[Backend], seed: int | bytes) -> Prepared:
    """Hashes the names. Raises ValueError for a seed, weight or number out of range."""
    names, weights, numbers = tuple(zip(*backends, strict=True)) or ((), (), ())
    try:
        return Prepared(permutation.keys(names, seed), array("I", weights), array("I", numbers))
    except OverflowError:
        raise ValueError("a backend's weight or number is not within 0 to 4294967295") from None


def fill(slots: WriteableBuffer, backends: Prepared) -> None:
    """Writes a table into `slots`: native 32-bit items, a prime number of them below 2**24.

    Raises ValueError, and leaves `slots` alone, for a number of slots that is no prime, a buffer
    that is read-only, not contiguous or not aligned, a weight above 65535, two backends of the
    same name, more backends of weight than slots, or none.
    """
    _fill.fill(slots, *backends)


def build(backends: Iterable[Backend], *, size: int, seed: int | bytes) -> array[int]:
    """The table of `size` slots; empty where no backend has a weight above 0.

    Raises ValueError as `prepare` and `fill` do.
    """
    prepared = prepare(backends, seed)
    if not any(prepared.weights):
        return array("I")
    slots = array("I", [0]) * size
    fill(slots, prepared)
    return slots


def table_size(count: int, limit: int, each: int = SLOTS_PER_BACKEND) -> int:
    """The smallest of `SIZES` with `each` slots for each of `count` backends, at most `limit`.

    `limit` is itself a size: a prime, the largest table that may be used. Where it is too small
    for so many slots each, shares are less even, and a change of backends moves more.
    """
    wanted = each * count
    return next((size for size in SIZES if wanted <= size < limit), limit)
