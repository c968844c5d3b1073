"""The machine room: small clusters with real servers, for tests, demo and benchmarks.

    with Cluster(nodes=2) as cluster:
        web = cluster.nodes[1].pod("web-0")
        web.nginx()
        curl(cluster.client, f"http://{web.ipv4}:8080/")

It knows the product by its command line and its socket only. It is no test itself.
"""

from tests.bed.agent import Agent
from tests.bed.claim import sweep
from tests.bed.clients import Answer, Outcome, Talk, connect, curl, datagrams, dig, ping
from tests.bed.cluster import Client, Cluster
from tests.bed.host import Host
from tests.bed.manifests import Manifests
from tests.bed.needs import missing
from tests.bed.node import Node, Pod
from tests.bed.process import BedError, Process, until
from tests.bed.servers import WHOAMI

__all__ = [
    "WHOAMI",
    "Agent",
    "Answer",
    "BedError",
    "Client",
    "Cluster",
    "Host",
    "Manifests",
    "Node",
    "Outcome",
    "Pod",
    "Process",
    "Talk",
    "connect",
    "curl",
    "datagrams",
    "dig",
    "missing",
    "ping",
    "sweep",
    "until",
]
