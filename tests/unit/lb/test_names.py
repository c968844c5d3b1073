"""Names beside ids: every unit can be read back, node and zone ids are counted by use."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bpf.layout import NameKey, NameKind
from lb.address import Family
from lb.model import Protocol, ServiceName
from lb.names import LONGEST, Names, packed, text_of, unit_of, unpacked
from lb.plan import Unit

WORDS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=63)
UNITS = st.builds(
    Unit,
    st.builds(ServiceName, WORDS, WORDS),
    st.text(string.ascii_lowercase, max_size=15),
    st.sampled_from(Protocol),
    st.sampled_from(Family),
)


@given(unit=UNITS, number=st.integers(1, 2**32 - 1))
def test_a_unit_is_read_back(unit: Unit, number: int) -> None:
    """What Kubernetes allows as names fits, and comes back the same."""
    kind, found, text = unpacked(*packed(NameKind.SERVICE, number, text_of(unit)))
    assert (kind, found, unit_of(text)) == (NameKind.SERVICE, number, unit)


@pytest.mark.parametrize("text", ["", "a", "a/b/c/d", "a/b/http/QUIC/IPv4", "a/b/c/TCP/IPv4/x"])
def test_what_names_no_unit_is_refused(text: str) -> None:
    """Junk in the map is an error, not a unit."""
    with pytest.raises((ValueError, KeyError)):
        unit_of(text)


def test_a_long_name_is_cut() -> None:
    """A name beyond the map's room keeps its start and its closing zero."""
    _, value = packed(NameKind.NODE, 1, "n" * 300)
    assert value == b"n" * LONGEST + b"\0"


def test_a_name_that_is_cut_in_a_character_still_shows() -> None:
    """Half a character at the end does not spoil the rest."""
    _, _, text = unpacked(*packed(NameKind.NODE, 1, "ü" * 200))
    assert text.startswith("ü" * (LONGEST // 2))


def test_all_ids_in_use_is_unknown_and_an_id_comes_back() -> None:
    """The 65,536th name is 0, unknown; once another goes, there is room."""
    names = Names()
    for number in range(1, 1 << 16):
        assert names.use(NameKind.NODE, f"n{number}") == number
    assert names.use(NameKind.ZONE, "z") == 0
    names.drop(NameKind.ZONE, 0)
    names.drop(NameKind.NODE, 7)
    assert names.use(NameKind.ZONE, "z") == 7


def test_ids_below_a_restored_one_are_not_lost() -> None:
    """After a restart with only the highest id in use, all others are free."""
    names = Names()
    names.restore(NameKind.NODE, (1 << 16) - 1, "old")
    assert names.use(NameKind.NODE, "old") == (1 << 16) - 1
    assert names.use(NameKind.NODE, "new") in range(1, (1 << 16) - 1)


def test_a_name_found_twice_is_no_crash() -> None:
    """Of two ids with one name, as a failed removal leaves them, one is used and one goes."""
    names = Names()
    names.restore(NameKind.NODE, 1, "n1")
    names.restore(NameKind.NODE, 2, "n1")
    kept = names.use(NameKind.NODE, "n1")
    names.forget_unused()
    assert names.gone == {NameKey(NameKind.NODE, 3 - kept).pack()}
    names.drop(NameKind.NODE, kept)
    assert len(names.gone) == 2


class Uses(RuleBasedStateMachine):
    """Random uses beside a plain list of them."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names()
        self.table: dict[bytes, bytes] = {}
        self.uses: list[tuple[NameKind, str, int]] = []

    @rule(
        kind=st.sampled_from([NameKind.NODE, NameKind.ZONE]), text=st.sampled_from(["", "a", "b"])
    )
    def use(self, kind: NameKind, text: str) -> None:
        """The same name has the same id as long as it is used."""
        number = self.names.use(kind, text)
        assert (number == 0) == (text == "")
        for other_kind, other_text, other in self.uses:
            if kind == other_kind:
                assert (number == other) == (text == other_text)
        self.uses.append((kind, text, number))

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """One use less."""
        if self.uses:
            kind, _, number = self.uses.pop(data.draw(st.integers(0, len(self.uses) - 1)))
            self.names.drop(kind, number)

    @rule()
    def restart(self) -> None:
        """What is in the table is read back; what nobody uses any more goes."""
        self.write()
        self.names = Names()
        for kind, number, text in [unpacked(*entry) for entry in self.table.items()]:
            self.names.restore(kind, number, text)
        for kind, text, number in self.uses:
            assert self.names.use(kind, text) == number
        self.names.forget_unused()
        assert self.names.gone == set()

    def write(self) -> None:
        """As the reconciler does."""
        self.table |= self.names.changed
        self.names.changed = {}
        for key in self.names.gone:
            self.table.pop(key, None)
        self.names.gone = set()

    @invariant()
    def the_table_holds_what_is_used(self) -> None:
        """Every name in use and none else, each under its id."""
        self.write()
        assert {unpacked(*entry) for entry in self.table.items()} == {
            (kind, number, text) for kind, text, number in self.uses if text
        }


TestUses = Uses.TestCase
TestUses.settings = settings(max_examples=60, stateful_step_count=30)
