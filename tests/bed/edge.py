"""Edge mode on a cluster of four nodes, set up by the very files of `deploy/edge`.

    client --- router with BIRD === n1, n2: balancers (agent, BIRD)
                                === n3, n4: plain servers, nothing of Tidegate on them

The files bear the bed's addresses. Asserts nothing.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bed import network
from tests.bed.agent import Agent
from tests.bed.cluster import Cluster
from tests.bed.host import PROBES, Host
from tests.bed.node import Node
from tests.bed.process import Process, until

FILES = Path(__file__).parents[2] / "deploy" / "edge"
VIP = network.Pair("203.0.113.80", "2001:db8:113::80")
WEB, ECHO = 80, 7
"""What is served there: nginx, and line_echo and udp_echo."""
DEVICES = ("edge4", "edge6")
"""Where the outer headers come off on a server."""
CONVERGED_SECONDS = 30.0
"""At most; BGP starts anew a second after a failure, and tries every five."""


class Edge:
    """Ready when made: both balancers serve, and the router leads to both."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.balancers, self.servers = cluster.nodes[:2], cluster.nodes[2:]
        self._birds: dict[str, Process] = {}
        self._agents: dict[str, Agent] = {}
        for family in ("ipv4", "ipv6"):
            policy = f"/proc/sys/net/{family}/fib_multipath_hash_policy"
            cluster.claim.enter("wire", f"echo 1 > {policy}")
        for server in self.servers:
            _serve(server)
        self._bird(cluster.router, "router.conf")
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.switch_on, self.balancers))
        self.await_hops(*self.balancers)

    def agent(self, balancer: Node) -> Agent:
        """The agent of a balancer."""
        return self._agents[balancer.name]

    def switch_on(self, balancer: Node) -> None:
        """Plug it in, and start what systemd would start there, in that order."""
        self.cluster.claim.enter("wire", f"ip link set {balancer.name} up")
        self._bird(balancer, "balancer.conf")
        (command,) = _unit("ExecStart")
        flags = command.split(" /etc/tidegate/manifests ")[1].split()
        self._agents[balancer.name] = balancer.agent(FILES / "manifests", *flags)
        self.announce(balancer)

    def switch_off(self, balancer: Node) -> None:
        """As by a power cut: nothing is sent any more, nobody is told, nothing is remembered."""
        self.cluster.claim.enter("wire", f"ip link set {balancer.name} down")
        self._birds.pop(balancer.name).end(signal.SIGKILL)
        self.agent(balancer).kill()
        self.agent(balancer).tidegate("cleanup")

    def announce(self, balancer: Node) -> None:
        """What tidegate.service does once the agent is ready."""
        self._birdc(balancer, "ExecStartPost")

    def drain(self, balancer: Node) -> None:
        """What tidegate.service does before it stops the agent."""
        self._birdc(balancer, "ExecStop")

    def await_hops(self, *balancers: Node) -> None:
        """Wait until the router leads to these balancers, and to no other, in both families."""
        wanted = {node.name for node in balancers}

        def led() -> bool:
            return all(self.hops(family) == wanted for family in ("ipv4", "ipv6"))

        until(led, f"routes to {' and '.join(sorted(wanted))}", timeout=CONVERGED_SECONDS)

    def hops(self, family: str) -> set[str]:
        """The balancers that the router's kernel spreads a family's flows over."""
        vip: str = getattr(VIP, family)
        version = "-6" if ":" in vip else "-4"
        shown = self.cluster.router.run("ip", version, "-j", "route", "show", vip).stdout
        (route,) = json.loads(shown or "[]") or [{}]
        ways = route.get("nexthops", [route])
        return {self._name_of(way["gateway"]) for way in ways if "gateway" in way}

    def way(self, source: str, port: int, *, protocol: str, to: int) -> str:
        """The balancer that the router gives a client's flow to."""
        vip = VIP.ipv6 if ":" in source else VIP.ipv4
        shown = self.cluster.router.run(
            "ip", "-j", "route", "get", vip, "from", source, "iif", "outside",
            "ipproto", protocol.lower(), "sport", str(port), "dport", str(to),
        ).stdout  # fmt: skip
        return self._name_of(json.loads(shown)[0]["gateway"])

    def carried(self, *, to: int) -> list[str]:
        """For each TCP connection of the client to that port, who the router gives it to now."""
        client = self.cluster.client
        shown = client.run("ss", "-tnH", "state", "established", f"dport = :{to}").stdout
        ends = [line.split()[2].rpartition(":") for line in shown.splitlines()]
        return [
            self.way(source.strip("[]"), int(port), protocol="tcp", to=to)
            for source, _, port in ends
        ]

    def _name_of(self, gateway: str) -> str:
        return next(node.name for node in self.balancers if gateway in node.addresses)

    def _bird(self, host: Host, file: str) -> None:
        pid = host.directory / "bird.pid"  # written once the control socket is there
        pid.unlink(missing_ok=True)
        self._birds[host.name] = host.spawn(
            "bird", "-f", "-c", str(FILES / file), "-s", str(_socket(host)), "-P", str(pid),
            ready=lambda _: pid.exists() and bool(pid.read_text()),
        )  # fmt: skip

    def _birdc(self, balancer: Node, setting: str) -> None:
        """Run the `birdc` commands of a setting of the unit."""
        for line in _unit(setting):
            command = re.findall(r"/birdc (\w+) (\w+)", line)[0]
            balancer.run("birdc", "-s", str(_socket(balancer)), *command)


def _unit(setting: str) -> list[str]:
    """The values of a setting of tidegate.service."""
    text = (FILES / "tidegate.service").read_text()
    return re.findall(rf"^{setting}=(.*)", text, re.MULTILINE)


def _socket(host: Host) -> Path:
    return host.directory / "bird.ctl"


def _serve(server: Node) -> None:
    """A plain server: prepared as an operator does it, then nginx and the echoes."""
    if not _kernel_unwraps(server):
        server.spawn(
            sys.executable, "-IS", str(PROBES / "decapsulate.py"), *DEVICES,
            ready=lambda process: "ready" in process.output,
        )  # fmt: skip
    server.run(str(FILES / "prepare-server"), *VIP)
    server.nginx(WEB)
    server.line_echo(ECHO)
    server.udp_echo(ECHO, *VIP)


def _kernel_unwraps(server: Node) -> bool:
    """Whether this kernel has ipip and ip6tnl; tried, since they may be modules not yet loaded."""
    for device, kind in zip(DEVICES, ("ipip", "ip6tnl"), strict=True):
        made = server.run("ip", "link", "add", device, "type", kind, "external", check=False)
        if made.returncode:
            return False
    return True
