"""`tidegate explain` beside every probe of the namespace tests: it has to say what then happened.

For each row of a probe (`tests.bed.watching`) it asks explain, in this process, on the nodes that
the packet meets, with the very ports that the client used and the memories of before. Verdict,
backend, the client's address that the backend sees, and the reason that is counted have to agree.
A socket's backend is taken at random: there the one that answered has to be among the candidates.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from bpf import netlink, netns
from bpf.layout import Asker, Reason
from bpf.maps import totals
from bpf.pins import Pins
from bpf.trial import Trial
from lb.address import parse
from lb.model import Protocol
from lb.see.explain import Explainer
from lb.see.frame import Ends
from lb.see.whence import Places, Whence
from lb.see.who import Who
from lb.tables import in_kernel
from tests.bed import Agent, Cluster, Host, Node
from tests.bed.agent import PROGRAMS
from tests.bed.claim import NAMESPACES
from tests.bed.watching import Probe, unwatch, watch
from tests.net.agreement import Answer, disagreement, is_telling

ROWS = 4
"""Of one probe; all rows of it ask the same, but for the ports."""
ROUTED = ("10.96.0.0/16", "fd00:10:96::/112")
"""Addresses of services whose way leads to n1, where any does."""
SOME_PORT = 40000

_serial = itertools.count(1)


class Oracle:
    """Explains on one node, on the tables of one build."""

    def __init__(self, node: Node, agent: Agent, folder: Path) -> None:
        self._pins = Pins(agent.bpffs)
        self._path = NAMESPACES / node.namespace
        self.built = self.build(agent)
        self._folder = folder
        folder.mkdir()
        self._trial = Trial(self._pins, folder, PROGRAMS)
        self._seen = agent.seen
        self._look()

    def _look(self) -> None:
        """Devices may have other programs since."""
        tables = in_kernel(self._pins)
        who = Who(tables, dict, lambda _: "", lambda: 0.0)
        with netns.entered(self._path):
            places = Places(self._seen, self._pins)
        self._explainer = Explainer(tables, who, self._trial, places)

    @staticmethod
    def build(agent: Agent) -> frozenset[str]:
        """The names of the tables in use."""
        folder = agent.bpffs / "maps"
        return frozenset(one.name for one in folder.iterdir()) if folder.is_dir() else frozenset()

    def counted(self) -> Counter[str]:
        """How often each reason met somebody, in truth."""
        counts = totals(self._pins.found("reasons"))
        return Counter({one.name.lower(): counts[one] for one in Reason})

    def begin(self) -> None:
        """What explain knows of clients is what the data path knows now; of flows, none."""
        self._trial.remember(flows=False)
        self._look()

    def explain(self, ends: Ends, cookie: int | None) -> Answer:
        """`cookie`: of the namespace of a socket that is seen; None: look for yourself."""
        with netns.entered(self._path):
            if cookie is None:
                return self._explainer.explain(ends)
            return self._explainer.explain_from(Whence(Asker.SOCKET, cookie=cookie), ends)

    def holds(self, address: str) -> bool:
        """Is it one of the node's own now? Tests give it more of them."""
        with netns.entered(self._path):
            return parse(address) in {one.address for one in netlink.addresses()}

    def close(self) -> None:
        """Nothing runs any more, and its tables go."""
        self._trial.close()
        shutil.rmtree(self._folder)


class Witness:
    """Watches the probes of a cluster. `agents` may grow; `routed` leads to n1 from outside."""

    def __init__(
        self, cluster: Cluster, agents: Sequence[Agent], routed: Iterable[str] = ROUTED
    ) -> None:
        self._cluster, self._agents = cluster, agents
        self._routed = [ip_network(one) for one in routed]
        self._oracles: dict[str, Oracle] = {}
        self._counted: dict[str, Counter[str]] = {}
        self._rows = 0
        self._cookies: dict[str, int] = {}

    def begin(self, host: Host) -> None:
        """What is known before the probe."""
        self._rows = 0
        self._counted = {}
        if host not in self._hosts():
            return
        for agent in self._agents:
            oracle = self._oracle(agent)
            if oracle is not None:
                oracle.begin()
                self._counted[agent.node.name] = oracle.counted()

    def saw(self, probe: Probe) -> None:
        """Compares. Raises AssertionError."""
        self._rows += 1
        if self._rows > ROWS or not self._counted or not is_telling(probe):
            return
        place, answer = self._explained(probe)
        if answer is not None:
            said = "\n".join(
                [f"explain on {place}: {answer['verdict']}", *answer["story"], str(answer)]
            )
            names = {at: host.name for host in self._hosts() for at in host.addresses}
            for name, oracle in self._oracles.items():
                if oracle.holds(probe.address):
                    names.setdefault(probe.address, name)
            counted = self._oracles[place].counted() - self._counted[place]
            wrong = disagreement(probe, answer, names, counted, is_first=self._rows == 1)
            assert not wrong, f"{wrong}: {probe}\n{said}"

    def close(self) -> None:
        """All that was made for it goes."""
        for oracle in self._oracles.values():
            oracle.close()
        self._oracles.clear()

    def _hosts(self) -> list[Host]:
        nodes = self._cluster.nodes
        others = [self._cluster.client, self._cluster.router]
        return [*others, *nodes, *(pod for node in nodes for pod in node.pods)]

    def _oracle(self, agent: Agent) -> Oracle | None:
        name = agent.node.name
        built = Oracle.build(agent)
        found = self._oracles.get(name)
        if found is not None and found.built != built:
            found.close()
            del self._oracles[name]
        if name not in self._oracles and built:
            (node,) = (one for one in self._cluster.nodes if one.name == name)
            folder = agent.bpffs.parent / f"witness-{next(_serial)}"
            self._oracles[name] = Oracle(node, agent, folder)
        return self._oracles.get(name)

    def _explained(self, probe: Probe) -> tuple[str, Answer | None]:
        """Where something was done to the packet, or the last place that it passed; what there."""
        place, answer = "", None
        for node in self._way(probe):
            oracle = self._oracles.get(node.name)
            if oracle is None:
                continue
            place, answer = node.name, oracle.explain(self._ends(probe), self._cookie(probe, node))
            if answer["verdict"] != "pass":
                break
        return place, answer

    def _way(self, probe: Probe) -> Iterator[Node]:
        """The nodes whose data path the packet meets."""
        home = self._home(probe.host)
        if home is not None:
            yield home
        to = ip_address(probe.address)
        routed = any(to in one for one in self._routed)
        known = routed or any(probe.address in one.addresses for one in self._hosts())
        for node in self._cluster.nodes:
            is_there = probe.address in node.addresses or (routed and node.number == 1)
            if not known and not to.is_loopback and node.name in self._oracles:
                is_there = self._oracles[node.name].holds(probe.address)
            if node is not home and is_there:
                yield node

    def _home(self, host: Host) -> Node | None:
        for node in self._cluster.nodes:
            if host is node or host in node.pods:
                return node
        return None

    def _ends(self, probe: Probe) -> Ends:
        family = "ipv6" if ":" in probe.address else "ipv4"
        source = probe.source or getattr(probe.host, family)
        return Ends(
            Protocol[probe.protocol], parse(source), probe.source_port or SOME_PORT,
            parse(probe.address), probe.port,
        )  # fmt: skip

    def _cookie(self, probe: Probe, node: Node) -> int | None:
        host = probe.host
        agent = next(one for one in self._agents if one.node is node)
        if self._home(host) is not node or not host.cgroup.is_relative_to(agent.seen):
            return None
        if host.name not in self._cookies:
            with netns.entered(NAMESPACES / host.namespace):
                self._cookies[host.name] = netns.cookie()
        return self._cookies[host.name]


@contextmanager
def witnessed(
    cluster: Cluster, *agents: Agent, routed: Iterable[str] = ROUTED
) -> Iterator[Witness]:
    """Every probe of the cluster is held against explain meanwhile."""
    witness = Witness(cluster, agents, routed)
    watch(witness)
    try:
        yield witness
    finally:
        unwatch(witness)
        witness.close()
