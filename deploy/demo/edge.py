"""Edge mode on a cluster of its own, by the files of `deploy/edge`: a balancer is switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.demo.asking import Seen
from tests.bed import Cluster, Talk
from tests.bed.edge import ECHO, VIP, Edge

CONNECTIONS = 8


def rows() -> Iterator[tuple[str, str, str, Callable[[], Seen]]]:
    """Asked, origin, expected, and how to see it."""
    yield ("edge: a balancer killed", "client outside", "no connection lost", _killed)


def _killed() -> Seen:
    """Connections before, while and after; the seconds are those of the longest wait."""
    with Cluster(nodes=4, name="demo-edge") as cluster:
        edge = Edge(cluster)
        vips = VIP * (CONNECTIONS // 2)
        talks = [Talk(cluster.client, "tcp", vip, ECHO, "--timeout", "9") for vip in vips]
        carried = edge.carried(to=ECHO)
        other, killed = sorted(edge.balancers, key=lambda node: carried.count(node.name))
        edge.switch_off(killed)
        edge.await_hops(other)
        for talk in talks:
            talk.await_answer()
        seen = [talk.stop() for talk in talks]
    lost = sum(one["connects"] > 1 or len(one["servers"]) > 1 for one in seen)
    return Seen(f"{lost or 'no'} connection lost", max(one["longest"] for one in seen))
