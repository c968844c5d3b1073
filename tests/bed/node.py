"""A node: the host of an agent, and the router of its pods."""

from __future__ import annotations

from pathlib import Path

from tests.bed import network
from tests.bed.agent import Agent
from tests.bed.claim import Claim
from tests.bed.servers import ServerHost

_DEVICE_LENGTH = 15
_PREFIX = "v-"


class Pod(ServerHost):
    """A pod: a host of its own behind its node."""


class Node(ServerHost):
    """Node n`number`. Its own programs run in `group`/host, its pods' in `group`/pods/NAME."""

    def __init__(self, claim: Claim, number: int) -> None:
        super().__init__(claim, f"n{number}", f"n{number}/host", network.node_address(number))
        self.number = number
        self.pods: list[Pod] = []

    @property
    def group(self) -> Path:
        """The cgroup of everything on this node: what its agent is given."""
        return self.cgroup.parent

    @property
    def pod_cidr(self) -> network.Pair:
        """The prefixes its pods' addresses come from."""
        return network.pod_cidr(self.number)

    def pod(self, name: str) -> Pod:
        """Add a pod; the name is unique in the cluster, and at most 13 characters."""
        device = _PREFIX + name
        if len(device) > _DEVICE_LENGTH:
            raise ValueError(f"pod name {name!r}: at most {_DEVICE_LENGTH - len(_PREFIX)} letters")
        own = network.pod_address(self.number, len(self.pods))
        pod = Pod(self._claim, name, f"{self.name}/pods/{name}", own)
        self._claim.build("ip", "netns", "add", pod.namespace)
        pod.make_folders()
        self.pods.append(pod)
        self._claim.enter(name, network.pod(own, self.addresses, device, self.namespace))
        self._claim.enter(self.name, network.pod_port(own, self.addresses, device))
        return pod

    def agent(self, manifests: Path | None, *flags: str) -> Agent:
        """Start an agent on a directory of manifests, or as `flags` say; returns once ready."""
        agent = Agent(self, self.group, self._claim.bpffs / self.name, manifests, flags)
        agent.start()
        return agent

    def reap(self) -> None:
        """End what still runs here and in its pods."""
        for pod in self.pods:
            pod.reap()
        super().reap()
