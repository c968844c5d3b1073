"""`tidegate monitor` names the pod whose bandwidth limit dropped a packet.

The programs stand on the devices as the agent puts them there on kernels with fq; without that
queue nobody waits, but what finds no room is dropped all the same. The agent keeps its hands off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bandwidth.annotations import Direction
from bandwidth.book import Book
from bandwidth.plan import Owner, Wanted
from bpf import tc
from bpf.layout import LimitState
from bpf.netns import entered
from bpf.pins import Pins
from bpf.texts import EDT
from lb.address import parse
from lb.config import table_sizes
from lb.limits.show import tables
from tests.bed import Host, datagrams
from tests.bed.agent import PROGRAMS
from tests.bed.claim import NAMESPACES
from tests.net.outside import FAMILY
from tests.net.test_monitor import rows, watching
from tests.net.world import World

pytestmark = pytest.mark.parametrize(
    "world", [("one_node", "--repair-interval", "0", "--bandwidth", "off")], indirect=True
)
SLOW = 1_000
"""Bits per second: a datagram takes seconds."""


@contextmanager
def limited(world: World, pod: str, direction: Direction) -> Iterator[None]:
    """One direction of a pod of n1 is held to SLOW."""
    pins = Pins(world.agent.bpffs, PROGRAMS)
    pins.make(table_sizes({}))
    book = Book(tables(pins))
    owner = Owner("default", pod, direction)
    addresses = tuple(map(parse, world.pods[pod].addresses))
    building = pins.compile([EDT["node"]], {"HAVE_SET_RETVAL": "1"})
    building.finish()
    folder = building.folders[EDT["node"]]
    places = {f"v-{pod}": (tc.POD_HOOK, tc.NAMING_HOOK), "eth0": (tc.LEAVING_HOOK,)}
    book.apply({owner: Wanted(SLOW, addresses)}, {owner: LimitState.ENFORCED})
    try:
        with entered(NAMESPACES / world.node.namespace):
            for device, hooks in places.items():
                tc.attach(device, tc.pins(folder, *hooks))
        yield
    finally:
        with entered(NAMESPACES / world.node.namespace):
            for device, hooks in places.items():
                tc.detach(device, hooks)
        book.apply({}, {})


@FAMILY
@pytest.mark.parametrize("direction", list(Direction))
def test_a_drop_names_the_pod(world: World, direction: Direction, family: str) -> None:
    """Its limit's drops are told with both ends, the pod and the direction; `--pod` finds them."""
    pod, client = world.near, world.cluster.client
    sender, to = (pod, client) if direction is Direction.EGRESS else (client, pod)
    with (
        limited(world, pod.name, direction),
        watching(world, "--pod", f"default/{pod.name}") as process,
    ):
        _send(sender, getattr(to, family))
        row = rows(process, 1)[0]
    assert (row["event"], row["reason"]) == ("drop", "bandwidth")
    assert (row["limited_pod"], row["direction"]) == (f"default/{pod.name}", str(direction))
    assert getattr(sender, family) in row["client"]
    assert (row["protocol"], row["backend_node"], row["hook"]) == ("UDP", "", "tc")


def _send(sender: Host, address: str) -> None:
    """Datagrams to a port where nobody listens, of which the first one takes all there is."""
    options = ["--size", "1000", "--timeout", "0.1"]
    datagrams(sender, *[(address, 9)] * 3, options=options)
