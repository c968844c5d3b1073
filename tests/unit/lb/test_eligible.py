"""Which endpoints may serve: one row for each case of kube-proxy's rules.

An endpoint is written `1 draining node=n1 zones=a,b nodes=n1`: the last byte of its address,
a word of `STATES`, and where it is and is hinted to; `|` stands between endpoints. This node
is n1 in zone a unless a row says otherwise. Expected lists are last bytes: `1 3`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import pytest

from lb.address import Family, parse
from lb.eligible import Candidate, Empty, Selection, candidates, select
from lb.model import (
    Endpoint,
    EndpointSlice,
    Policy,
    Protocol,
    ServiceName,
    SliceName,
    SlicePort,
)

WEB = ServiceName("default", "web")
BASE = {Family.IPV4: "10.0.0.", Family.IPV6: "fd00::"}
STATES = {
    "": {},
    "ready": {"ready": True, "serving": True, "terminating": False},
    "published": {"ready": True, "serving": False, "terminating": False},
    "leaving": {"ready": True, "serving": True, "terminating": True},
    "unready": {"ready": False, "serving": False, "terminating": False},
    "waiting": {"ready": False, "serving": True, "terminating": False},
    "draining": {"ready": False, "serving": True, "terminating": True},
    "dead": {"ready": False, "serving": False, "terminating": True},
}


def endpoint(text: str, family: Family = Family.IPV4) -> Endpoint:
    """The endpoint that a row writes."""
    number, *words = text.split()
    state = "".join(word for word in words if "=" not in word)
    facts = dict(word.split("=") for word in words if "=" in word)
    bare = Endpoint(
        parse(BASE[family] + number),
        node=facts.get("node", ""),
        zone_hints=tuple(facts["zones"].split(",")) if "zones" in facts else (),
        node_hints=tuple(facts["nodes"].split(",")) if "nodes" in facts else (),
    )
    return msgspec.structs.replace(bare, **STATES[state])


def part(text: str, *ports: SlicePort, family: Family = Family.IPV4) -> EndpointSlice:
    """A slice with the endpoints that a row writes; by default with the port http, 8080."""
    return EndpointSlice(
        SliceName("default", "web-1"),
        WEB,
        family,
        ports or (SlicePort("http", Protocol.TCP, 8080),),
        tuple(endpoint(one, family) for one in text.split("|") if one.strip()),
    )


def join(*slices: EndpointSlice) -> tuple[Candidate, ...]:
    """The candidates of the port http over TCP."""
    return candidates(slices, "http", Protocol.TCP, Family.IPV4)


def chosen(text: str, node: str = "n1", zone: str = "a", family: Family = Family.IPV4) -> Selection:
    """What a row's endpoints come to."""
    found = candidates([part(text, family=family)], "http", Protocol.TCP, family)
    return select(found, node=node, zone=zone)


def numbers(found: Iterable[Candidate]) -> str:
    """The last bytes, as rows write them."""
    return " ".join(str(one.endpoint.address[-1]) for one in found)


class Row(NamedTuple):
    """Endpoints, and the three lists they come to."""

    case: str
    endpoints: str
    cluster: str
    local: str
    usable: str
    node: str = "n1"
    zone: str = "a"


ROWS = [
    # Readiness
    Row("no endpoints at all", "", "", "", ""),
    Row("missing conditions mean ready", "1|2 node=n1", "1 2", "2", "1 2"),
    Row("all ready", "1 ready|2 ready", "1 2", "", "1 2"),
    Row("none ready", "1 unready|2 waiting", "", "", ""),
    Row("some ready", "1 unready|2 ready", "2", "", "2"),
    Row("ready routes though it does not serve", "1 published node=n1", "1", "1", "1"),
    Row("ready routes though it terminates", "1 leaving node=n1", "1", "1", "1"),
    Row("not ready and not terminating never", "1 waiting node=n1", "", "", ""),
    Row("not ready, not serving, not terminating", "1 unready node=n1", "", "", ""),
    Row("terminating and not serving never", "1 dead node=n1|2 dead", "", "", ""),
    # Terminating fallback
    Row("all terminating, one here", "1 draining node=n1|2 draining", "1 2", "1", "1 2"),
    Row("all terminating, all elsewhere", "1 draining node=n2|2 draining", "1 2", "", "1 2"),
    Row("terminating rests while one is ready", "1 draining|2 ready", "2", "", "1 2"),
    Row("unready does not stop the fallback", "1 draining|2 waiting", "1", "", "1"),
    Row(
        "each list falls back on its own",
        "1 ready node=n2|2 unready node=n1|3 draining node=n1|4 draining node=n2",
        "1", "3", "1 3 4",
    ),
    Row(
        "local terminating rests while a local one is ready",
        "1 draining node=n1|2 ready node=n1|3 ready node=n2",
        "2 3", "2", "1 2 3",
    ),
    # Policy Local
    Row("all here", "1 ready node=n1|2 ready node=n1", "1 2", "1 2", "1 2"),
    Row("some here", "1 ready node=n1|2 ready node=n2", "1 2", "1", "1 2"),
    Row("all elsewhere", "1 ready node=n2|2 ready node=n3", "1 2", "", "1 2"),
    Row("no node is never here", "1 ready|2 draining", "1", "", "1 2"),
    Row("no node is not here for a nameless agent", "1 ready", "1", "", "1", node=""),
    Row("only an unready one here", "1 unready node=n1|2 ready node=n2", "2", "", "2"),
    # Zone hints
    Row("own zone", "1 zones=a|2 zones=b|3 zones=c|4 zones=a", "1 4", "", "1 2 3 4"),
    Row(
        "several zones for an endpoint",
        "1 zones=a,b,c|2 zones=b,c|3 zones=b,d|4 zones=c",
        "1 2 4", "", "1 2 3 4", zone="c",
    ),
    Row("no endpoint for this zone", "1 zones=a", "1", "", "1", zone="b"),
    Row("node without a zone", "1 zones=a|2 zones=b", "1 2", "", "1 2", zone=""),
    Row("an empty zone matches no empty hint", "1 zones=|2 zones=b", "1 2", "", "1 2", zone=""),
    Row("one without a hint voids the hints", "1 zones=a|2 zones=b|3", "1 2 3", "", "1 2 3"),
    Row("an unready one in the zone is not used", "1 zones=a|2 zones=b|3 unready zones=a",
        "1", "", "1 2"),
    Row("only unready ones in the zone", "1 unready zones=a|2 zones=b|3 zones=c",
        "2 3", "", "2 3"),
    Row("an unready one without a hint voids nothing", "1 zones=a|2 zones=b|3 unready",
        "1", "", "1 2"),
    Row("a terminating one without a hint voids nothing", "1 zones=a|2 zones=b|3 draining",
        "1", "", "1 2 3"),
    Row("the fallback knows no hints", "1 draining zones=a|2 draining zones=b",
        "1 2", "", "1 2"),
    Row(
        "Local knows no hints",
        "1 node=n1 zones=a|2 node=n1 zones=b|3 node=n2 zones=c|4 node=n2 zones=a",
        "1 4", "1 2", "1 2 3 4",
    ),
    Row(
        "hints and place conflict",
        "1 node=n1 zones=b|2 node=n2 zones=a|3 draining node=n1 zones=a",
        "2", "1", "1 2 3",
    ),
    # Node hints
    Row("own node", "1 nodes=n1|2 nodes=n2|3 nodes=n2,n1", "1 3", "", "1 2 3"),
    Row("node before zone", "1 nodes=n1 zones=b|2 nodes=n2 zones=a", "1", "", "1 2"),
    Row("no endpoint for this node: the zone", "1 nodes=n2 zones=a|2 nodes=n3 zones=b",
        "1", "", "1 2"),
    Row("no endpoint for node or zone: all", "1 nodes=n2 zones=b|2 nodes=n3 zones=c",
        "1 2", "", "1 2"),
    Row("one without a node hint: the zone", "1 nodes=n1 zones=b|2 zones=a", "2", "", "1 2"),
    Row("one without a zone hint: still the node", "1 nodes=n1|2 nodes=n2 zones=a",
        "1", "", "1 2"),
    Row("node hints work without a zone", "1 nodes=n1 zones=a|2 nodes=n2 zones=a",
        "1", "", "1 2", zone=""),
    Row("no node name matches no empty hint", "1 nodes=|2 nodes=n2", "1 2", "", "1 2", node=""),
    Row("only an unready one for this node", "1 unready nodes=n1 zones=b|2 nodes=n2 zones=a|"
        "3 nodes=n2 zones=b", "2", "", "2 3"),
    Row("a node hint does not make local", "1 node=n2 nodes=n1", "1", "", "1"),
]  # fmt: skip


@pytest.mark.parametrize("family", Family, ids=lambda family: family.label)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_lists(row: Row, family: Family) -> None:
    """Each case comes to its Cluster list, its Local list and its usable endpoints."""
    got = chosen(row.endpoints, row.node, row.zone, family)
    assert [numbers(got.cluster), numbers(got.local), numbers(got.usable)] == [
        row.cluster,
        row.local,
        row.usable,
    ]


OUTCOMES = [
    # situation, endpoints, iTP Cluster, iTP Local, eTP Cluster, eTP Local outside and inside
    ("nobody", "", "REFUSE REFUSE REFUSE REFUSE REFUSE"),
    ("nobody usable", "1 unready node=n1|2 dead", "REFUSE REFUSE REFUSE REFUSE REFUSE"),
    ("none local", "1 ready node=n2", "1 DROP 1 DROP 1"),
    ("local terminating, ready elsewhere", "1 draining node=n1|2 ready node=n2", "2 1 2 1 2"),
    ("all terminating, one local", "1 draining node=n1", "1 1 1 1 1"),
    ("all terminating, none local", "1 draining node=n2", "1 DROP 1 DROP 1"),
    ("local not serving, ready elsewhere", "1 dead node=n1|2 ready node=n2", "2 DROP 2 DROP 2"),
]


@pytest.mark.parametrize(
    ("endpoints", "expected"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
def test_outcome_by_policy_and_source(endpoints: str, expected: str) -> None:
    """Every cell of the table of outcomes: a backend, a refusal or silence."""
    got = chosen(endpoints)
    inside = got.cluster
    lists = [
        got.under(Policy.CLUSTER),
        got.under(Policy.LOCAL),
        got.under(Policy.CLUSTER),
        got.under(Policy.LOCAL),
        inside,
    ]
    assert " ".join(numbers(one) or got.empty.name for one in lists) == expected


def test_last_endpoint_deleted_turns_silence_into_refusal() -> None:
    """Policy Local drops while another node serves, and refuses once nobody does."""
    before, after = chosen("1 ready node=n2"), chosen("")
    assert (before.local, before.empty) == ((), Empty.DROP)
    assert (after.local, after.empty) == ((), Empty.REFUSE)


HTTP = SlicePort("http", Protocol.TCP, 8080)
JOINS = [
    ("union of slices", [part("3|1"), part("2")], "1:8080 2:8080 3:8080"),
    ("a slice without endpoints", [part(""), part("2")], "2:8080"),
    ("no slices", [], ""),
    ("other port name", [part("1", SlicePort("https", Protocol.TCP, 8443))], ""),
    ("unnamed is not any", [part("1", SlicePort("", Protocol.TCP, 8080))], ""),
    ("same name, other protocol", [part("1", SlicePort("http", Protocol.UDP, 8080))], ""),
    ("same name, both protocols", [part("1", HTTP, SlicePort("http", Protocol.UDP, 53))], "1:8080"),
    ("a slice of the other family", [part("1"), part("2", family=Family.IPV6)], "1:8080"),
    (
        "another number under the name",
        [part("1"), part("2", SlicePort("http", Protocol.TCP, 80))],
        "1:8080 2:80",
    ),
    (
        "one address with two numbers is two endpoints",
        [part("1"), part("1", SlicePort("http", Protocol.TCP, 80))],
        "1:80 1:8080",
    ),
    ("an endpoint in two slices", [part("1|2"), part("2|3")], "1:8080 2:8080 3:8080"),
]


@pytest.mark.parametrize(
    ("slices", "expected"), [row[1:] for row in JOINS], ids=[row[0] for row in JOINS]
)
def test_join(slices: list[EndpointSlice], expected: str) -> None:
    """Name and protocol link a service port to slice ports; the number comes from the slice."""
    assert " ".join(f"{numbers([one])}:{one.port}" for one in join(*slices)) == expected


def test_unnamed_port_pairs_with_unnamed_port() -> None:
    """An empty port name matches the empty port name only."""
    slices = [part("1", SlicePort("", Protocol.UDP, 53)), part("2", HTTP)]
    assert numbers(candidates(slices, "", Protocol.UDP, Family.IPV4)) == "1"


def test_port_names_share_a_slice() -> None:
    """Ports of one slice do not disturb each other."""
    one = part("1", SlicePort("dns", Protocol.UDP, 53), SlicePort("dns-tcp", Protocol.TCP, 5353))
    ports = [
        candidates([one], name, protocol, Family.IPV4)[0].port
        for name, protocol in (("dns", Protocol.UDP), ("dns-tcp", Protocol.TCP))
    ]
    assert ports == [53, 5353]


COPIES = [
    ("not terminating beats terminating", "1 ready", "1 draining"),
    ("even unready beats terminating", "1 unready", "1 draining"),
    ("even unready beats ready and terminating", "1 unready", "1 leaving"),
    ("ready beats not ready", "1 published", "1 waiting"),
    ("serving beats not serving", "1 draining", "1 dead"),
    ("a node beats none", "1 ready node=n2", "1 ready"),
    ("a zone hint beats none", "1 ready zones=a", "1 ready"),
    ("a node hint beats none", "1 ready nodes=n1", "1 ready"),
    ("between equals by name", "1 ready node=n2", "1 ready node=n1"),
]


@pytest.mark.parametrize(
    ("winner", "loser"), [row[1:] for row in COPIES], ids=[row[0] for row in COPIES]
)
def test_copies(winner: str, loser: str) -> None:
    """Of two copies of an address and port the same one stays, whichever comes first."""
    expected = (Candidate(endpoint(winner), 8080),)
    assert join(part(winner), part(loser)) == expected
    assert join(part(loser), part(winner)) == expected
    assert join(part(f"{loser}|{winner}|{loser}")) == expected


def test_move_between_slices_is_no_change() -> None:
    """An endpoint in its old slice, in both, or in its new one: the same result."""
    old, both, new = (
        join(part("1|2"), part("3")),
        join(part("1|2"), part("2|3")),
        join(part("1"), part("2|3")),
    )
    assert old == both == new
