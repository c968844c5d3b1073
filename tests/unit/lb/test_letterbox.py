"""What is delivered before the recipient is there arrives as if it had been."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lb.letterbox import Letterbox
from lb.model import Change, Key, Kind
from lb.sources import Inbox, Report


class Recipient:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def changed(self, changes: Sequence[Change]) -> None:
        """Noted."""
        self.given.append(changes)

    def synced(self) -> None:
        """Noted."""
        self.given.append("synced")

    def report(self, report: Report) -> None:
        """Noted."""
        self.given.append(report)


CHANGES = st.builds(lambda name: [Change(Key(Kind.NODE, "", name), None)], st.text(max_size=3))
REPORTS = st.builds(Report, st.just("manifests"), st.text(max_size=3))
DELIVERIES = st.lists(st.one_of(st.just("synced"), CHANGES, REPORTS), max_size=8)


def deliver(inbox: Inbox, what: object) -> None:
    """One delivery by its kind."""
    match what:
        case "synced":
            inbox.synced()
        case Report():
            inbox.report(what)
        case list():
            inbox.changed(what)


@given(before=DELIVERIES, after=DELIVERIES)
def test_everything_arrives_once_and_in_order(before: list[object], after: list[object]) -> None:
    """Whenever the recipient comes, it gets all deliveries, in their order, each once."""
    letterbox, recipient = Letterbox(), Recipient()
    for one in before:
        deliver(letterbox, one)
    assert recipient.given == []
    letterbox.lead_to(recipient)
    assert recipient.given == before
    for one in after:
        deliver(letterbox, one)
    assert recipient.given == before + after
