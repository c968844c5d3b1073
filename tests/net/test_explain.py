"""`tidegate explain` against what real traffic then does: they agree; asking changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from bpf.netns import entered
from lb.address import Address, parse, show
from lb.model import Protocol
from lb.see.asking import explaining
from lb.see.explain import Explainer
from lb.see.frame import Ends, build
from tests.bed import Host, connect
from tests.bed.agent import PROGRAMS, command
from tests.net.outside import TWO_NODES, Outside
from tests.net.test_commands import refused
from tests.net.world import FAMILIES, WEB, World

LINK = Ether(dst="02:00:00:00:00:01")
"""With an address: scapy would ask the network for one."""

pytestmark = TWO_NODES
FROM_PORT = """
import json, socket, sys
protocol, source, sport, to, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in to else socket.AF_INET
kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
said = ""
with socket.socket(family, kind) as client:
    client.settimeout(0.4)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((source, int(sport)))
    try:
        client.connect((to, int(port)))
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n" if protocol == "TCP" else b"hello")
        while piece := client.recv(4096):
            said += piece.decode()
            if protocol == "UDP":
                break
        said = json.loads(said.rpartition("\\r\\n\\r\\n")[2])["pod"]
    except TimeoutError:
        said = "timeout"
    except OSError as error:
        said = error.strerror
print(json.dumps(said))
"""
"""One connection from a port of one's own choice: who answered, or what went wrong."""


def asked(host: Host, ends: Ends) -> str:
    """What a real client meets."""
    text = [_text(one) for one in (ends.source, ends.destination)]
    said: str = host.python(
        FROM_PORT, ends.protocol.name, text[0], str(ends.source_port), text[1],
        str(ends.destination_port),
    )  # fmt: skip
    return said


def _text(address: bytes) -> str:
    return show(Address(address))


class Oracle:
    """Explains on n1, in its network namespace."""

    def __init__(self, world: World, explainer: Explainer) -> None:
        self._path, self._explainer = _namespace(world), explainer

    def __call__(self, ends: Ends, **how: Any) -> dict[str, Any]:
        """As `Explainer.explain`."""
        with entered(self._path):
            return self._explainer.explain(ends, **how)


def _namespace(world: World) -> Path:
    return Path(f"/run/netns/{world.node.namespace}")


@pytest.fixture
def oracle(world: World) -> Iterator[Any]:
    """Makes one, on the tables as they are when it is called."""
    agent = world.agent
    made = []

    def make() -> Oracle:
        with entered(_namespace(world)):
            one = explaining(agent.bpffs, agent.api_socket, PROGRAMS)
            made.append(one)
            return Oracle(world, one.__enter__())

    yield make
    for one in made:
        one.__exit__(None, None, None)


def who(world: World, answer: dict[str, Any]) -> str:
    """The name of the host behind the backend that was explained."""
    hosts = [*world.pods.values(), *world.cluster.nodes]
    address = answer["backend"].rpartition(":")[0].strip("[]")
    return next(one.name for one in hosts if address in (one.ipv4, one.ipv6))


def test_packets_from_outside(outside: Outside, oracle: Any) -> None:
    """Every kind of frontend, both families and protocols: the very backend that then answers."""
    world, client = outside.world, outside.client
    places = {
        protocol: outside.expose(f"told-{protocol.lower()}", world.webs, protocol=protocol)
        for protocol in ("TCP", "UDP")
    }
    explain = oracle()
    seen = set()
    for protocol, by_kind in places.items():
        for number, (kind, place) in enumerate(by_kind.items()):
            for family in FAMILIES:
                ends = Ends(
                    Protocol[protocol], parse(getattr(client, family)), 41000 + number,
                    parse(getattr(place.at, family)), place.port,
                )  # fmt: skip
                answer = explain(ends)
                met = asked(client, ends)
                assert who(world, answer) == met, (kind, answer)
                assert answer["verdict"] == ("local" if met == "web-0" else "forward")
                assert answer["mode"] == ("local" if met == "web-0" else "snat")
                assert answer["service"] == f"default/told-{protocol.lower()}"
                assert answer["flow"] == "begins"
                assert answer["algorithm"] == ("random" if kind == "cluster" else "maglev")
                if kind != "cluster":
                    assert answer["ring"]["slot"] < answer["ring"]["slots"]
                seen.add(met)
    assert seen == {"web-0", "web-1"}


def test_drops_and_passes(outside: Outside, oracle: Any) -> None:
    """What is dropped is told with its reason, and meets silence; what is no service's passes."""
    world, client = outside.world, outside.client
    local = outside.expose("only-local", [world.far], external_policy="Local")
    nobody = outside.expose("no-one", [])
    ranged = outside.expose("ranged", [world.near], source_ranges=["192.0.2.250/32"])
    explain = oracle()
    for number, (place, reason) in enumerate(
        [
            (local["balancer"], "no_local_backend"),
            (nobody["external"], "no_backend"),
            (ranged["balancer"], "source_range"),
        ]
    ):
        source, to = parse(client.ipv4), parse(place.at.ipv4)
        ends = Ends(Protocol.TCP, source, 42000 + number, to, place.port)
        answer = explain(ends)
        assert answer["verdict"] in {"drop", "reject"}
        assert answer["reason"] == reason
        assert reason in "\n".join(answer["story"])
        assert asked(client, ends) not in {"web-0", "web-1"}
    ends = Ends(Protocol.TCP, parse(client.ipv4), 42009, parse(world.near.ipv4), WEB)
    assert explain(ends)["verdict"] == "pass"
    assert asked(client, ends) == "web-0"


def test_connects(outside: Outside, oracle: Any) -> None:
    """A pod's connect meets the only backend, the one that affinity remembers, or a refusal."""
    world, app = outside.world, outside.world.app
    one = outside.expose("one-tcp", [world.far])["cluster"]
    nobody = outside.expose("none", [])["cluster"]
    sticky = world.serve("sticky-too", world.webs, affinity_seconds=600)
    for family in FAMILIES:
        source = parse(getattr(app, family))
        ends = Ends(Protocol.TCP, source, 43000, parse(getattr(one.at, family)), one.port)
        to = Ends(Protocol.TCP, source, 43001, parse(getattr(sticky, family)), 80)
        none = Ends(Protocol.TCP, source, 43002, parse(getattr(nobody.at, family)), nobody.port)
        first = asked(app, to)
        explain = oracle()
        answer = explain(ends)
        assert (answer["via"], answer["verdict"]) == ("socket", "forward")
        assert who(world, answer) == asked(app, ends) == "web-1"
        assert len(answer["candidates"]) == 1
        answer = explain(to)
        assert answer["remembered"] is True, answer
        assert who(world, answer) == asked(app, to._replace(source_port=43003)) == first
        assert (explain(none)["verdict"], explain(none)["reason"]) == ("reject", "no_backend")
        assert asked(app, none) == "Connection refused"


def test_packets_of_a_pod(outside: Outside, oracle: Any) -> None:
    """Past its sockets, by its device: the views of pods, and its own address stays."""
    world, app = outside.world, outside.world.app
    place = outside.expose("podwise", [world.far], external_policy="Local")["balancer"]
    own = outside.expose("podwise-own", [app])["cluster"]
    explain = oracle()
    for family in FAMILIES:
        source = parse(getattr(app, family))
        ends = Ends(Protocol.TCP, source, 47000, parse(getattr(place.at, family)), place.port)
        answer = explain(ends, socket=False)
        assert (answer["via"], answer["device_in"]) == ("pod", "v-app-0")
        assert (answer["view"], answer["verdict"], answer["mode"]) == ("inside", "forward", "local")
        assert who(world, answer) == "web-1"
        assert getattr(app, family) in answer["sent"]["source"]
        assert "its pod's device v-app-0" in answer["story"][0]
        ends = ends._replace(destination=parse(getattr(own.at, family)), destination_port=own.port)
        answer = explain(ends, socket=False)
        assert (answer["verdict"], answer["mode"]) == ("local", "snat")
        assert getattr(world.node, family) in answer["sent"]["source"]


def test_a_known_flow(outside: Outside, oracle: Any) -> None:
    """A connection that is there is told as such, and stays with its backend."""
    world, client = outside.world, outside.client
    place = outside.expose("known", [world.far])["balancer"]
    ends = Ends(Protocol.TCP, parse(client.ipv4), 44000, parse(place.at.ipv4), place.port)
    assert asked(client, ends) == "web-1"
    frame = bytearray(build(ends, bytes(6)))
    frame[14 + 20 + 13] = 0x10  # ACK: it belongs to a connection
    answer = oracle()(ends, frame=bytes(frame))
    assert answer["flow"] == "closing"
    assert "stays with its backend" in "\n".join(answer["story"])
    assert who(world, answer) == "web-1"


def test_nothing_is_disturbed(outside: Outside, oracle: Any, world: World) -> None:
    """No flow, no memory, no counter, no event, and nothing is left behind."""
    place = outside.expose("quiet", world.webs, affinity_seconds=60)["balancer"]
    shown = ("services", "backends", "flows", "affinity", "drops")
    before = {what: _shown(world, what) for what in shown}
    explain = oracle()
    for number in range(3):
        source = parse(outside.client.ipv4)
        explain(Ends(Protocol.TCP, source, 45000 + number, parse(place.at.ipv4), place.port))
        app = parse(world.app.ipv4)
        explain(Ends(Protocol.TCP, app, 45000 + number, parse(place.at.ipv4), place.port))
    assert {what: _shown(world, what) for what in shown} == before


def _shown(world: World, what: str) -> list[dict[str, Any]]:
    narrow = () if what == "drops" else ("--service", "default/quiet")
    said = world.agent.tidegate("show", what, *narrow, "-o", "json").stdout
    rows: list[dict[str, Any]] = json.loads(said)
    return rows


@pytest.mark.parametrize(("family", "protocol"), [("ipv4", "TCP"), ("ipv6", "UDP")])
def test_the_command(outside: Outside, world: World, family: str, protocol: str) -> None:
    """Text and JSON, with a pod's name; exit status 1 where the answer is no; nothing stays."""
    place = outside.expose("web", [world.near], protocol=protocol)["balancer"]
    client = f"[{outside.client.ipv6}]" if family == "ipv6" else outside.client.ipv4
    to = f"[{place.at.ipv6}]" if family == "ipv6" else place.at.ipv4
    argv = ("explain", protocol.lower(), f"{client}:40000", f"{to}:{place.port}")
    answer = json.loads(world.agent.tidegate(*argv, "-o", "json").stdout)
    assert (answer["verdict"], answer["service"]) == ("local", "default/web")
    assert answer["backend_pod"] == "default/web-0"
    if protocol == "TCP":
        text = world.agent.tidegate(*argv).stdout
        assert "a load balancer address of default/web" in text
        assert "pod default/web-0, on n1" in text
        assert text.endswith("verdict: local\n")
    assert not list(world.agent.bpffs.glob("trial-*"))


def test_a_capture(outside: Outside, world: World, tmp_path: Path) -> None:
    """Each packet of a file has its story; a connection's second packet finds the first's flow."""
    place = outside.expose("caught", world.webs)["balancer"]
    packet = LINK / IP(src=outside.client.ipv4, dst=place.at.ipv4)
    port = place.port
    packets = [packet / TCP(sport=46000, dport=port, flags=flags) for flags in ("S", "A", "FA")]
    stranger = LINK / IP(src=outside.client.ipv4, dst=world.far.ipv4) / UDP(dport=1)
    wrpcap(str(tmp_path / "some.pcap"), [*packets, LINK / ARP(), stranger])
    argv = ("explain", "--capture", str(tmp_path / "some.pcap"), "-o", "json")
    answers = json.loads(world.agent.tidegate(*argv).stdout)
    assert len({answer["backend"] for answer in answers[:3]}) == 1
    assert [answer.get("flow") for answer in answers[:3]] == ["begins", "new", "new"]
    assert ["stays with its backend" in " ".join(one["story"]) for one in answers[:3]] == [
        False, True, True,
    ]  # fmt: skip
    assert [answer["verdict"] for answer in answers[3:]] == ["pass"]


def test_top(outside: Outside, world: World) -> None:
    """What just had connections stands above; a pipe gets one picture."""
    place = outside.expose("busy", world.webs)["balancer"]
    agent = world.agent
    where = ("--bpffs", str(agent.bpffs), "--api-socket", str(agent.api_socket))
    showing = world.node.spawn(*command(), "top", "--interval", "2", "--count", "1", *where)
    while showing.running:
        connect(outside.client, place.at.ipv4, place.port)
    lines = showing.output.splitlines()
    assert "node n1" in lines[0]
    heading = next(n for n, text in enumerate(lines) if text.startswith("SERVICE"))
    assert lines[heading + 1].startswith("default/busy/TCP")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "what is asked?"),
        (("tcp", "1.2.3.4", "1.2.3.4:1"), "'1.2.3.4': write ADDRESS:PORT"),
        (("tcp", "1.2.3.4:1", "[::1]:1"), "different IP families"),
        (("icmp", "1.2.3.4:1", "1.2.3.4:1"), "icmp"),
        (("--capture", "/no/such"), "/no/such"),
        (("tcp", "10.0.0.1:1", "10.0.0.2:1", "--from-pod", "a/b"), "--from-pod a/b"),
    ],
)
def test_wrong_usage(world: World, argv: tuple[str, ...], said: str) -> None:
    """One line that names what is wrong, and status 2."""
    assert said in refused(world.agent.tidegate("explain", *argv, check=False))
