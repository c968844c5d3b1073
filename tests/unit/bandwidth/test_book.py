"""The tables of limits: who has which number, in which order things are written."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from bandwidth.annotations import Direction
from bandwidth.book import Book, Tables, rows
from bandwidth.plan import Owner, Wanted, cgroup_key
from bpf.layout import Limit, LimitState, PodLimits
from bpf.maps import MemoryArray, MemoryHash

ON = LimitState.ENFORCED
NAMES = ["a", "b", "c", "d"]


def tables(room: int = 8) -> Tables:
    """Empty ones; number 0 is nobody's."""
    return Tables(MemoryArray(room + 1, Limit.SIZE), MemoryHash(64), MemoryHash(64))


def owner(name: str, direction: Direction = Direction.EGRESS) -> Owner:
    """A pod's limit."""
    return Owner("default", name, direction)


def wanted(name: str, bits: int = 8000) -> Wanted:
    """A limit at an address of the pod's own."""
    return Wanted(bits, (name.encode().rjust(16, b"\0"),))


def apply(book: Book, rates: Mapping[str, int]) -> bool:
    """Egress limits of these pods."""
    asked = {owner(name): wanted(name, bits) for name, bits in rates.items()}
    return book.apply(asked, dict.fromkeys(asked, ON))


def shown(found: Tables) -> dict[str, tuple[int, int]]:
    """Bits asked for and bytes per second in force, by pod."""
    return {one.pod: (bits, entry.rate) for one, (_, bits, entry) in rows(found).items()}


def test_a_limit_is_written_whole() -> None:
    """Its rate, its name, and its address leads to it."""
    found = tables()
    book = Book(found)
    assert apply(book, {"a": 80_000})
    assert shown(found) == {"a": (80_000, 10_000)}
    (number,) = {held.number for held in book.held.values()}
    assert dict(found.pods.items()) == {wanted("a").addresses[0]: PodLimits(number, 0).pack()}
    assert book.used == (1, 1)
    apply(book, {})
    assert book.used == (0, 0)


def test_entry_zero_says_whether_cgroups_are_looked_up() -> None:
    """Packets of the node itself pay for it only then."""
    found = tables()
    book, one = Book(found), {owner("h"): Wanted(8000, (cgroup_key(7),))}
    gates = []
    for asked in (one, {}):
        book.apply(asked, dict.fromkeys(asked, ON))
        gates.append(Limit.unpack(found.limits.read(0)).state)
    assert gates == [1, 0]


def test_an_entry_of_another_layout_gets_its_rate_back() -> None:
    """After an upgrade the names are there, and the limits are empty: nobody is unlimited."""
    found = tables()
    apply(Book(found), {"a": 80_000})
    anew = found._replace(limits=MemoryArray(9, Limit.SIZE))
    book = Book(anew)
    book.adopt()
    apply(book, {"a": 80_000})
    assert shown(anew) == {"a": (80_000, 10_000)}


def test_nothing_new_writes_nothing() -> None:
    """The second time is free."""
    book = Book(tables())
    apply(book, {"a": 8000, "b": 16000})
    assert not apply(book, {"a": 8000, "b": 16000})


def test_a_new_rate_keeps_number_and_counts() -> None:
    """And starts its clock anew: a queue at the old rate would keep the new one waiting."""
    found = tables()
    book = Book(found)
    apply(book, {"a": 8000})
    number = book.held[owner("a")].number
    entry = Limit.unpack(found.limits.read(number))
    raw = bytearray(entry.pack())
    raw[32:40] = (99).to_bytes(8, "little")  # clock
    raw[64:72] = (5).to_bytes(8, "little")  # packets
    found.limits.write(number, bytes(raw))
    apply(book, {"a": 16000})
    after = Limit.unpack(found.limits.read(number))
    assert (after.rate, after.clock, after.packets) == (2000, 0, 5)


def test_the_next_agent_finds_what_was_there() -> None:
    """Rates, numbers and addresses; a start without change writes nothing."""
    found = tables()
    apply(Book(found), {"a": 8000, "b": 16000})
    again = Book(found)
    again.adopt()
    assert {one.pod: held.bits for one, held in again.held.items()} == {"a": 8000, "b": 16000}
    assert not apply(again, {"a": 8000, "b": 16000})


def test_names_that_are_none_are_removed() -> None:
    """What nobody can read belongs to nobody."""
    found = tables()
    found.names.put({b"\1\0\0\0": b"junk".ljust(256, b"\0")})
    Book(found).adopt()
    assert list(found.names.items()) == []


def test_who_finds_no_room_is_named() -> None:
    """All others have their limits; with room it comes by itself."""
    book = Book(tables(room=2))
    apply(book, {"a": 8000, "b": 8000, "c": 8000})
    assert (len(book.held), book.full) == (2, {owner("c")})
    apply(book, {"a": 8000, "c": 8000})
    apply(book, {"a": 8000, "c": 8000})
    assert (set(book.held), book.full) == ({owner("a"), owner("c")}, set())


def test_a_number_rests_before_it_is_given_again() -> None:
    """Packets on their way may still carry it."""
    book = Book(tables())
    apply(book, {"a": 8000})
    number = book.held[owner("a")].number
    apply(book, {"b": 8000})
    assert book.held[owner("b")].number != number


@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([8000, 16000])), max_size=8)
)
def test_the_tables_hold_what_was_asked_for_last(steps: list[dict[str, int]]) -> None:
    """Whatever came before; and no two limits share a number."""
    found = tables()
    book = Book(found)
    for rates in steps:
        apply(book, rates)
        assert shown(found) == {name: (bits, bits // 8) for name, bits in rates.items()}
        numbers = [held.number for held in book.held.values()]
        assert len(set(numbers)) == len(numbers)
        led = {PodLimits.unpack(value).egress for _, value in found.pods.items()}
        assert led == set(numbers)


@given(st.lists(st.sampled_from(["rate", "state", "pod", "name", "more"]), min_size=1))
def test_what_others_alter_is_put_back(harms: list[str]) -> None:
    """A round later all is as it was, the clocks and counts of the data path aside."""
    found = tables()
    book = Book(found)
    apply(book, {"a": 80_000, "b": 16_000})
    before = (dict(found.pods.items()), dict(found.names.items()), found.limits.read(0, 9))
    assert (list(book.mend()), book.differences()) == ([], [])
    for harm in harms:
        match harm:
            case "rate":
                found.limits.store_word(1, 0, 1)
            case "state":
                found.limits.store_word(2, 24, 7)
            case "pod":
                found.pods.remove([next(iter(before[0]))])
            case "name":
                found.names.put({next(iter(before[1])): bytes(256)})
            case _:
                found.pods.put({bytes(15) + b"x": bytes(8)})
    assert len(book.differences()) == len(set(harms))
    assert len(list(book.mend())) == len(set(harms))
    assert (dict(found.pods.items()), dict(found.names.items()), found.limits.read(0, 9)) == before
    assert (list(book.mend()), book.differences()) == ([], [])
