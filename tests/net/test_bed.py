"""The bed carries traffic as a cluster does: both families, TCP and UDP, all the ways about."""

from __future__ import annotations

import json
import sys

import pytest

from tests.bed import WHOAMI, BedError, Cluster, Host, Outcome, Pod, curl, dig

FAMILIES = ["ipv4", "ipv6"]
WAYS = [
    # from, to: pods by name, nodes by name, the client outside
    ("app-0", "web-0"),
    ("app-0", "web-1"),
    ("app-1", "web-0"),
    ("web-0", "web-0"),
    ("n1", "web-0"),
    ("n1", "web-1"),
    ("client", "web-1"),
]


def host(cluster: Cluster, name: str) -> Host:
    """The host of that name."""
    hosts = [cluster.client, *cluster.nodes, *(pod for node in cluster.nodes for pod in node.pods)]
    return next(host for host in hosts if host.name == name)


def url(address: str, port: int = 8080) -> str:
    """An HTTP URL of an address of either family."""
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


ECHO = """
import json, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.settimeout(2)
    sender.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
    text, peer = sender.recvfrom(4096)
print(json.dumps([peer[0], json.loads(text)]))
"""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("source", "target"), WAYS)
class TestWays:
    """Every way through the cluster, in both families; the server sees who really asks."""

    def test_tcp(self, two_nodes: Cluster, source: str, target: str, family: str) -> None:
        """The web server names itself, its client's address and the address that was asked."""
        client, server = host(two_nodes, source), host(two_nodes, target)
        answer = curl(client, url(getattr(server, family)))
        assert answer.outcome is Outcome.OK, answer
        seen = answer.json
        assert (seen["pod"], seen["client"]) == (target, getattr(client, family))
        assert (seen["local"], seen["local_port"]) == (getattr(server, family), 8080)

    def test_udp(self, two_nodes: Cluster, source: str, target: str, family: str) -> None:
        """The echo server answers from the address that was asked, and names both."""
        client, server = host(two_nodes, source), host(two_nodes, target)
        peer, seen = client.python(ECHO, getattr(server, family), "5000")
        assert peer == getattr(server, family)
        assert (seen["pod"], seen["client"]) == (target, getattr(client, family))
        assert seen["text"] == "hello"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_dns(one_node: Cluster, family: str, *, tcp: bool) -> None:
    """The name server answers over UDP and TCP with the pod's name and addresses."""
    app, web = host(one_node, "app-0"), host(one_node, "web-1")
    for kind, expected in (("TXT", "web-1"), ("A", web.ipv4), ("AAAA", web.ipv6)):
        answer = dig(app, getattr(web, family), 5353, WHOAMI, kind, tcp=tcp)
        assert (answer.outcome, answer.text) == (Outcome.OK, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_outside_client_reaches_a_node(two_nodes: Cluster, family: str) -> None:
    """A server on the node itself sees the client's own address, and the answer comes back."""
    node, port = two_nodes.nodes[1], 8081 if family == "ipv4" else 8082
    node.nginx(port)
    seen = curl(two_nodes.client, url(getattr(node, family), port)).json
    assert (seen["pod"], seen["client"]) == ("n2", getattr(two_nodes.client, family))


CLOSED = [
    # address (of the pod web-0, or one that nobody has), dig over TCP, expected outcome
    ("ipv4", False, Outcome.REFUSED),
    ("ipv4", True, Outcome.REFUSED),
    ("ipv6", False, Outcome.REFUSED),
    ("ipv6", True, Outcome.REFUSED),
    # dig waits a second at least: one of each family and protocol will do
    ("10.96.0.10", False, Outcome.TIMEOUT),
    ("fd00:10:96::a", True, Outcome.TIMEOUT),
]


@pytest.mark.parametrize(("address", "tcp", "expected"), CLOSED)
def test_failures_are_told_apart(
    one_node: Cluster, address: str, expected: Outcome, *, tcp: bool
) -> None:
    """A closed port refuses at once; what nobody serves vanishes on the wire."""
    app = host(one_node, "app-0")
    target = getattr(host(one_node, "web-0"), address, address)
    assert curl(app, url(target, 9), timeout=0.3).outcome is expected
    assert dig(app, target, 9, WHOAMI, tcp=tcp, timeout=1).outcome is expected


def test_iperf(one_node: Cluster) -> None:
    """The bandwidth server takes a short test."""
    web = one_node.nodes[0].pods[1]
    web.iperf()
    done = host(one_node, "app-0").run(
        "iperf3", "--client", web.ipv6, "--bytes", "1M", "--json", timeout=20
    )
    assert json.loads(done.stdout)["end"]["sum_sent"]["bytes"] >= 1 << 20


def test_programs_run_in_their_own_cgroup(two_nodes: Cluster) -> None:
    """A pod's programs run below its node's cgroup, beside the node's own programs."""
    source = "import json; print(json.dumps(open('/proc/self/cgroup').read().split()[-1]))"
    node = two_nodes.nodes[1]
    pod, own = (hosted.python(source) for hosted in (node.pods[0], node))
    assert pod == f"0::/tidegate-{two_nodes.name}/n2/pods/web-1"
    assert own == f"0::/tidegate-{two_nodes.name}/n2/host"
    assert node.group.is_dir()
    assert str(node.group).endswith(f"tidegate-{two_nodes.name}/n2")


def test_nginx_text(one_node: Cluster) -> None:
    """A text of the test's own replaces the usual answer."""
    pod: Pod = one_node.nodes[0].pods[0]
    pod.nginx(port=8090, text="blue")
    assert curl(pod, url(pod.ipv4, 8090)).text == "blue"


def test_failures_show_the_program_s_output(one_node: Cluster) -> None:
    """A program that fails, hangs or never gets ready is shown with what it wrote."""
    app = host(one_node, "app-0")
    with pytest.raises(BedError, match="exit status 3\nwhy"):
        app.run("sh", "-c", "echo why; exit 3")
    with pytest.raises(BedError, match=r"not done in 0.2 s\nwhy"):
        app.run("sh", "-c", "echo why; exec sleep 60", timeout=0.2)
    with pytest.raises(BedError, match="ended before readiness\nwhy"):
        app.spawn("sh", "-c", "echo why; exit 3", ready=lambda _: False)
    with pytest.raises(BedError, match=r"no readiness within 0.2 s(?s:.*)why"):
        app.spawn(
            sys.executable, "-ISuc", "print('why'); import signal; signal.pause()",
            ready=lambda _: False, timeout=0.2,
        )  # fmt: skip
