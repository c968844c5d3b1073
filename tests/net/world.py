"""A cluster with an agent on every node, and services written so that all agents have them.

What the tests of one file share; each test takes addresses and a name of its own. Not for
clusters themselves (`tests.bed`), and it asserts nothing.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.bed import Agent, Cluster, Host, Manifests, Node, Pod
from tests.bed.manifests import Manifest, endpoint, endpoint_slice, service, slice_port
from tests.bed.manifests import port as service_port
from tests.bed.network import Pair
from tests.bed.process import Process
from tests.bed.watching import unwatch, watch
from tests.net.witness import Witness

ECHO, WEB, DNS = 5000, 8080, 5353
"""What the pods of a cluster's fixture serve: UDP echo, nginx, dnsmasq."""

ENDED = {"ECONNABORTED", "EDESTADDRREQ"}
"""How the owner of a UDP socket learns that it was ended: in recv, or in send (udp_abort)."""

FAMILIES = ("ipv4", "ipv6")
_LABEL = {"ipv4": "IPv4", "ipv6": "IPv6"}


class World:
    """`cluster` with an agent a node, all on one directory; n1 has the server web-0 and app-0.

    Each probe is held against what explain says.
    """

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.manifests = Manifests(directory)
        self.agents: list[Agent] = []
        self.pods = {pod.name: pod for node in cluster.nodes for pod in node.pods}
        self._numbers = itertools.count(1)
        self._witness = Witness(cluster, self.agents)
        watch(self._witness)

    def start(self, *flags: str, most: int | None = None) -> None:
        """An agent on every node, or on so many; returns once all are ready."""
        nodes = self.cluster.nodes[:most]
        with ThreadPoolExecutor(len(nodes)) as pool:
            self.agents += pool.map(lambda one: one.agent(self.manifests.directory, *flags), nodes)

    def close(self) -> None:
        """End the agents and take their data path off, so that the next ones start afresh."""
        unwatch(self._witness)
        self._witness.close()
        for agent in self.agents:
            agent.stop()
            agent.tidegate("cleanup")

    @property
    def agent(self) -> Agent:
        """The one of n1, where `app` is."""
        return self.agents[0]

    @property
    def node(self) -> Node:
        """n1."""
        return self.cluster.nodes[0]

    @property
    def app(self) -> Pod:
        """A client on n1."""
        return self.pods["app-0"]

    @property
    def near(self) -> Pod:
        """A server on n1."""
        return self.pods["web-0"]

    @property
    def far(self) -> Pod:
        """Another server; on n2 if there is one."""
        return self.pods["web-1"]

    @property
    def webs(self) -> list[Pod]:
        """Both servers."""
        return [self.near, self.far]

    def vip(self) -> Pair:
        """Addresses that nobody had before, fit for a cluster IP."""
        number = next(self._numbers)
        return Pair(f"10.96.{number // 250}.{number % 250 + 1}", f"fd00:10:96::{number:x}")

    def node_port(self) -> int:
        """A node port that nobody had before."""
        return 30000 + next(self._numbers)

    def node_of(self, host: Host) -> str:
        """The name of a pod's node, or of the node itself."""
        return next(node.name for node in self.cluster.nodes if host in (node, *node.pods))

    @contextmanager
    def change(self) -> Iterator[None]:
        """Leave the block once every agent applied the one change made in it."""
        with ExitStack() as stack:
            for agent in self.agents:
                stack.enter_context(agent.change())
            yield

    def write(self, name: str, *objects: Manifest) -> None:
        """Put the objects into a file of that name; returns once they are applied."""
        with self.change():
            self.manifests.write(f"{name}.yaml", *objects)

    def remove(self, name: str) -> None:
        """Take the file away; returns once that is applied."""
        with self.change():
            self.manifests.remove(f"{name}.yaml")

    def serve(
        self, name: str, pods: Iterable[Host], *, at: Pair | None = None, **spec: Any
    ) -> Pair:
        """Write a service as `objects` has it, by default at new addresses; those addresses."""
        at = at or self.vip()
        self.write(name, *self.objects(name, pods, at, **spec))
        return at

    def objects(
        self,
        name: str,
        pods: Iterable[Host],
        at: Pair,
        *,
        target: int = WEB,
        port: int = 80,
        protocol: str = "TCP",
        node_port: int | None = None,
        **spec: Any,
    ) -> list[Manifest]:
        """A dual-stack service of one port with one ready endpoint a pod."""
        ports = [service_port(port, protocol=protocol, node_port=node_port)]
        one = service(name, cluster_ips=at, ports=ports, **spec)
        return [one, *self.slices(name, pods, target=target, protocol=protocol)]

    def slices(
        self,
        name: str,
        pods: Iterable[Host],
        *,
        target: int = WEB,
        protocol: str = "TCP",
        **conditions: Any,
    ) -> list[Manifest]:
        """A slice of each family with one endpoint a pod; `conditions` are of all of them."""
        found = list(pods)
        return [
            endpoint_slice(
                name,
                endpoints=[
                    endpoint(
                        getattr(pod, family), node=self.node_of(pod), pod=pod.name, **conditions
                    )
                    for pod in found
                ],
                ports=[slice_port(target, protocol=protocol)],
                family=_LABEL[family],
            )
            for family in FAMILIES
        ]


def url(address: str, port: int = 80) -> str:
    """The URL of a web server."""
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


ASK_ON = """
import json, signal, socket, sys, time
to, stop, seen, failed = (sys.argv[1], 80), [], {}, []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
while not stop:
    try:
        with socket.create_connection(to, timeout=2) as one:
            one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            said = b"".join(iter(lambda: one.recv(4096), b"")).partition(b"\\r\\n\\r\\n")[2]
            seen[json.loads(said)["pod"]] = seen.get(json.loads(said)["pod"], 0) + 1
    except OSError as error:
        failed.append(str(error))
    if sum(seen.values()) == 1:
        print("answered", flush=True)
print(json.dumps({"seen": seen, "failed": failed}))
"""
"""Connects to an address again and again until SIGTERM; says whom it met."""


def ask_on(client: Host, address: str) -> Process:
    """Connects to port 80 of the address without a pause; see `answers`."""
    return client.spawn(
        sys.executable, "-IS", "-c", ASK_ON, address,
        ready=lambda process: "answered" in process.output,
    )  # fmt: skip


def answers(asking: Process) -> Any:
    """Ends it: `seen`, connects by the pod that answered, and `failed`, errors."""
    asking.end()
    return json.loads(asking.output.splitlines()[-1])
