"""To whom the ways are kept open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import Backend, BackendFlag, BackendState
from lb.address import Address, family, parse
from lb.neighbours import MOST_UNNAMED, representatives

HERE = BackendFlag.HERE


def record(
    address: Address, node: int, *, state: int = BackendState.READY, views: int = 1
) -> bytes:
    """An entry of the table `backends`."""
    return Backend(address, 80, state, views, 1, 1, node, 0).pack()


ADDRESSES = st.sampled_from(
    [parse(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")]
)
RECORDS = st.lists(
    st.builds(
        record, ADDRESSES, st.integers(0, 3),
        state=st.sampled_from(list(BackendState)), views=st.sampled_from([0, 1, HERE, HERE | 1]),
    )
)  # fmt: skip


@given(RECORDS)
def test_each_other_node_once_in_each_family(records: list[bytes]) -> None:
    """A node has one that stands for it, a backend of no node itself; none is here or free."""
    there = [Backend.unpack(one) for one in records]
    live = [
        (Address(one.address), one.node)
        for one in there
        if one.state != BackendState.FREE and not one.views & HERE
    ]
    found = representatives([b"".join(records[:2]), b"".join(records[2:])])
    assert set(found) <= {address for address, _ in live}
    unnamed = {address for address, node in live if not node}
    named = {(node, family(address)) for address, node in live if node}
    assert unnamed <= set(found)
    assert len(found) == len(unnamed) + len(named)


def test_servers_without_nodes_have_a_limit() -> None:
    """No more than the kernel keeps entries for."""
    many = [record(Address(number.to_bytes(16)), 0) for number in range(1, MOST_UNNAMED + 10)]
    assert len(representatives([b"".join(many)])) == MOST_UNNAMED
