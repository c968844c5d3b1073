"""The cluster of the demo: two nodes, six pods, an agent on each node, the shipped manifests.

The addresses in `manifests/` are those that the bed gives to its pods in this order.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bed import Cluster, Manifests, Node, Pod
from tests.bed.network import Pair

MANIFESTS = Path(__file__).parent / "manifests"
LED_TO_N1 = (
    Pair("203.0.113.40/32", "2001:db8:113::40/128"),
    Pair("203.0.113.46/32", "2001:db8:113::46/128"),
    Pair("203.0.113.47/32", "2001:db8:113::47/128"),
    Pair("10.96.0.53/32", "fd00:96::53/128"),
)
"""Addresses of services that the router outside has routes for."""


class Stage:
    """What a try needs: pods by name, nodes, agents, and the manifests that the agents watch."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.n1, self.n2 = cluster.nodes
        self.pods = {pod.name: pod for node in cluster.nodes for pod in _pods(node)}
        for prefix in LED_TO_N1:
            cluster.route(prefix, self.n1)
        # A copy, since the tour changes it; in the cluster's folder, so that it goes with it.
        folder = Path(shutil.copytree(MANIFESTS, cluster.claim.directory / "manifests"))
        self.manifests = Manifests(folder)
        with ThreadPoolExecutor() as pool:
            self.agents = list(pool.map(lambda node: node.agent(folder), cluster.nodes))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Make one change of the manifests in the block; left when both agents applied it."""
        with ExitStack() as stack:
            for agent in self.agents:
                stack.enter_context(agent.change())
            yield

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace `old` by `new` in a manifest and wait until it is applied."""
        text = (self.manifests.directory / name).read_text()
        if old not in text:
            raise ValueError(f"{name}: no such text: {old}")
        with self.applied():
            self.manifests.text(name, text.replace(old, new))


def _pods(node: Node) -> Iterator[Pod]:
    yield node.pod(f"client-{node.number}")
    web = node.pod(f"web-{node.number}")
    web.nginx(8080)
    web.udp_echo(5000)
    yield web
    dns = node.pod(f"dns-{node.number}")
    dns.dns(5353)
    yield dns
