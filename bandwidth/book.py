"""The tables of limits, and who has which number in them. The only writer of all three.

A limit's number stays with its pod, also over restarts: names lie beside it. What a pod's address
leads to is there before the address does, and goes after it. Not for deciding: that is `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from bandwidth.annotations import Direction
from bandwidth.pacing import terms
from bandwidth.plan import Owner, Wanted, is_cgroup, owner_of
from bpf.kept import differences, key_of, put_back
from bpf.layout import Limit, LimitState, Name, PodLimits
from bpf.maps import Array, Hash

_RATE, _LONGEST, _MARK, _STATE, _CLOCK, _QUICK = range(0, 48, 8)
_NAME = 256


class Tables(NamedTuple):
    """The three, in the kernel or in memory."""

    limits: Array
    pods: Hash
    names: Hash


class Held(NamedTuple):
    """A limit as it lies in the tables. `bits` is what the pod asked for."""

    number: int
    bits: int
    state: LimitState


class Book:
    """What the tables hold. `full` names those that found no room."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.held: dict[Owner, Held] = {}
        self.full: set[Owner] = set()
        self._pods: dict[bytes, bytes] = {}
        self._last = 0

    @property
    def used(self) -> tuple[int, int]:
        """Entries in use: of `limits`, and of `pods`."""
        return len(self.held), len(self._pods)

    def adopt(self) -> None:
        """Reads back what an agent before left; what belongs to nobody goes. Raises OSError."""
        limits, pods, names = self._tables
        self._pods = dict(pods.items())
        for key, value in list(names.items()):
            number = int.from_bytes(key, "little")
            try:
                owner, bits = _named(value)
                entry = Limit.unpack(limits.read(number))
                state = LimitState(entry.state)
            except (ValueError, IndexError):
                names.remove([key])
                continue
            if entry.rate != terms(bits).rate:  # another version laid it out
                self._tell(number, bits)
            self.held[owner] = Held(number, bits, state)
            self._last = max(self._last, number)

    def apply(self, wanted: Mapping[Owner, Wanted], states: Mapping[Owner, LimitState]) -> bool:
        """Writes what differs; True: something did. Raises OSError."""
        self.full.clear()
        changed = False
        for owner, one in wanted.items():
            changed |= self._put(owner, one, states[owner])
        changed |= self._lead({owner: one for owner, one in wanted.items() if owner in self.held})
        for owner in self.held.keys() - wanted.keys():
            self._free(owner)
            changed = True
        return changed

    def _put(self, owner: Owner, one: Wanted, state: LimitState) -> bool:
        limits, names = self._tables.limits, self._tables.names
        before = self.held.get(owner)
        after = Held(before.number if before else self._number(), one.bits, state)
        if after == before:
            return False
        if not after.number:
            self.full.add(owner)
            return False
        if before is None:
            limits.write(after.number, bytes(Limit.SIZE))
        if before is None or before.bits != one.bits:
            names.put({after.number.to_bytes(4, "little"): _name(owner, one.bits)})
            self._tell(after.number, one.bits)
        limits.store_word(after.number, _STATE, state)
        self.held[owner] = after
        return True

    def _tell(self, number: int, bits: int) -> None:
        """The entry's rate, and what follows from it."""
        rate, longest, mark = terms(bits)
        # A queue at the old rate would keep the new one waiting: the clocks begin anew.
        words = {_LONGEST: longest, _MARK: mark, _RATE: rate, _CLOCK: 0, _QUICK: 0}
        for place, value in words.items():
            self._tables.limits.store_word(number, place, value)

    def _lead(self, wanted: Mapping[Owner, Wanted]) -> bool:
        """Addresses lead to their limits; those that no longer should are removed."""
        numbers: dict[bytes, dict[Direction, int]] = {}
        for owner, one in wanted.items():
            for address in one.addresses if one.fault is None else ():
                numbers.setdefault(address, {})[owner.direction] = self.held[owner].number
        after = {
            address: PodLimits(both.get(Direction.EGRESS, 0), both.get(Direction.INGRESS, 0)).pack()
            for address, both in numbers.items()
        }
        gone = self._pods.keys() - after.keys()
        new = {key: value for key, value in after.items() if self._pods.get(key) != value}
        if new:
            self._tables.pods.put(new)
        if gone or new:
            self._tables.limits.store_word(0, _STATE, any(map(is_cgroup, after)))
        self._tables.pods.remove(gone)
        self._pods = after
        return bool(gone or new)

    def _free(self, owner: Owner) -> None:
        number = self.held.pop(owner).number
        for place in (_RATE, _STATE):
            self._tables.limits.store_word(number, place, 0)
        self._tables.names.remove([number.to_bytes(4, "little")])

    def mend(self) -> Iterator[str]:
        """Make the tables say what they should; a line for each thing that was not so.

        Raises OSError.
        """
        tables = self._tables
        names = {key_of(held.number): _name(owner, held.bits) for owner, held in self.held.items()}
        yield from filter(None, put_back(tables.names, names, _shown))
        yield from filter(None, put_back(tables.pods, self._pods, lambda _: "a pod's limits"))
        for number, place, value in self._altered():
            tables.limits.store_word(number, place, value)
            yield f"limit {number}, which was altered"

    def differences(self) -> list[str]:
        """The same, and changes nothing. Raises OSError."""
        tables = self._tables
        names = {key_of(held.number): _name(owner, held.bits) for owner, held in self.held.items()}
        lines = differences(tables.names, names, _shown)
        lines += differences(tables.pods, self._pods, lambda _: "a pod's limits")
        altered = sorted({number for number, _, _ in self._altered()})
        return [*lines, *(f"limit {number} is altered" for number in altered)]

    def _altered(self) -> list[tuple[int, int, int]]:
        """Words of `limits` that say something else: number, place, what they should say.

        Only of limits that are held: to no other leads any address.
        """
        found: list[tuple[int, int, int]] = []
        for held in self.held.values():
            entry = self._tables.limits.read(held.number)
            rate, longest, mark = terms(held.bits)
            for place, value in ((_RATE, rate), (_LONGEST, longest), (_MARK, mark),
                                 (_STATE, held.state)):  # fmt: skip
                if int.from_bytes(entry[place : place + 8], "little") != value:
                    found.append((held.number, place, value))
        return found

    def _number(self) -> int:
        """One that is free, and was for as long as can be; 0: none is.

        Packets on their way may still carry the number of a limit that just went.
        """
        used = {one.number for one in self.held.values()}
        after = chain(range(self._last + 1, self._tables.limits.capacity), range(1, self._last + 1))
        number = next((one for one in after if one not in used), 0)
        self._last = number or self._last
        return number


def _shown(key: bytes) -> str:
    return f"the name of limit {int.from_bytes(key, 'little')}"


def rows(tables: Tables) -> dict[Owner, tuple[int, int, Limit]]:
    """Every limit in the tables: its number, bits per second, and its entry. Raises OSError."""
    found = {}
    for key, value in tables.names.items():
        with suppress(ValueError):
            owner, bits = _named(value)
            number = int.from_bytes(key, "little")
            found[owner] = number, bits, Limit.unpack(tables.limits.read(number))
    return found


def whose(value: bytes) -> Owner:
    """The owner of a limit, by the entry of `names`. Raises ValueError."""
    return _named(value)[0]


def _name(owner: Owner, bits: int) -> bytes:
    text = f"{owner}/{bits}".encode()
    # A namespace has up to 63 letters and a pod up to 253: the name gives way.
    return Name(text[-_NAME + 1 :].ljust(_NAME, b"\0")).pack()


def _named(value: bytes) -> tuple[Owner, int]:
    """Raises ValueError."""
    text = Name.unpack(value).text.rstrip(b"\0").decode()
    owner, _, bits = text.rpartition("/")
    return owner_of(owner), int(bits)
