"""What the maps should say of one service: frontends, views, empty views, ranges, affinity."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import BackendFlag, BackendState, Empty, FrontendFlag, View
from lb.address import Family, Prefix, parse, parse_prefix, show
from lb.model import Dispatch, Policy, Protocol, ServicePort, SlicePort, Way
from lb.plan import Here, Plan, plan
from lb.show import TYPES
from lb.status import show_key
from tests.unit.lb.making import BASE, N1, service, slice_of

IPS = {Family.IPV4: "10.96.0.10", Family.IPV6: "fd00:96::10"}
EXTERNAL = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:5::1"}
BALANCER = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8:7::1"}
EXTERNAL_KINDS = {
    "ClusterIP": {},
    "NodePort": {"node_port": 30080},
    "ExternalIP": {"external_ips": tuple(parse(ip) for ip in EXTERNAL.values())},
    "LoadBalancer": {"load_balancer_ips": tuple(parse(ip) for ip in BALANCER.values())},
}


def planned(*endpoints: str, which: Family = Family.IPV4, **fields: Any) -> Plan:
    """The plan of a service with a single unit."""
    fields = {"node_port": 30080} | fields
    (one,) = plan(
        service("web", IPS[which], **fields), [slice_of("web", *endpoints, which=which)], N1
    )
    return one


def shown(one: Plan) -> list[str]:
    """Frontends in words."""
    return [f"{show_key(frontend.key)} {TYPES[frontend.type]}" for frontend in one.frontends]


def listed(one: Plan, view: View) -> str:
    """The last parts of the addresses that a view offers, or what it does without."""
    found = [str(b.address[-1]) for b in one.backends if b.views & 1 << view]
    assert not found or one.empty[view] == Empty.REFUSE
    return " ".join(found) or one.empty[view].name


@pytest.mark.parametrize("which", Family, ids=lambda one: one.label)
@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("NodePort", {Family.IPV4: "node port 30080/TCP", Family.IPV6: "node port 30080/TCP"}),
        ("ExternalIP", {f: f"{ip}:80/TCP" for f, ip in EXTERNAL.items()}),
        ("LoadBalancer", {f: f"{ip}:80/TCP" for f, ip in BALANCER.items()}),
    ],
)
def test_each_kind_of_frontend(kind: str, address: dict[Family, str], which: Family) -> None:
    """Beside the cluster IP stands the other frontend, of the unit's own family only."""
    (one,) = plan(service("web", IPS[which], **EXTERNAL_KINDS[kind]), [], N1)
    text = address[which]
    text = f"[{text.replace(':80/', ']:80/')}" if text.startswith("2001") else text
    cluster = f"[{IPS[which]}]:80/TCP" if which is Family.IPV6 else f"{IPS[which]}:80/TCP"
    assert shown(one) == [f"{cluster} ClusterIP", f"{text} {kind}"]


def test_units_are_ports_times_families() -> None:
    """Two ports in two families are four units, each with its own cluster IP."""
    ports = (ServicePort("a", Protocol.TCP, 80), ServicePort("b", Protocol.UDP, 53))
    found = plan(service("web", *IPS.values(), ports=ports), [], N1)
    assert [str(one.unit) for one in found] == [
        "default/web:a/TCP (IPv4)",
        "default/web:a/TCP (IPv6)",
        "default/web:b/UDP (IPv4)",
        "default/web:b/UDP (IPv6)",
    ]


PRECEDENCE = [
    ("external twice", ["198.51.100.1", "198.51.100.1"], [], "ExternalIP"),
    ("external and balancer", ["198.51.100.1"], ["198.51.100.1"], "ExternalIP"),
    ("cluster IP and external", ["10.96.0.10"], [], ""),
    ("cluster IP and balancer", [], ["10.96.0.10"], ""),
]


@pytest.mark.parametrize(
    ("external", "balancer", "kind"), [r[1:] for r in PRECEDENCE], ids=[r[0] for r in PRECEDENCE]
)
def test_one_address_named_twice(external: list[str], balancer: list[str], kind: str) -> None:
    """The first kind counts: cluster IP, node port, external IP, load balancer."""
    (one,) = plan(
        service(
            "web", "10.96.0.10",
            external_ips=tuple(map(parse, external)), load_balancer_ips=tuple(map(parse, balancer)),
        ), [], N1,
    )  # fmt: skip
    rest = [f"198.51.100.1:80/TCP {kind}"] if kind else []
    assert shown(one) == ["10.96.0.10:80/TCP ClusterIP", *rest]


CLUSTER, LOCAL = Policy.CLUSTER, Policy.LOCAL
VIEWS = [
    # case, endpoints, internal and external policy, cluster IP, inside, outside
    ("both here and there", "1 n1|2 n2", CLUSTER, CLUSTER, "1 2|1 2|1 2"),
    ("external Local", "1 n1|2 n2", CLUSTER, LOCAL, "1 2|1 2|1"),
    ("internal Local", "1 n1|2 n2", LOCAL, CLUSTER, "1|1 2|1 2"),
    ("both Local", "1 n1|2 n2", LOCAL, LOCAL, "1|1 2|1"),
    ("none here", "2 n2", LOCAL, LOCAL, "DROP|2|DROP"),
    ("nobody", "", LOCAL, LOCAL, "REFUSE|REFUSE|REFUSE"),
    ("nobody usable", "1 n1 unready", LOCAL, CLUSTER, "REFUSE|REFUSE|REFUSE"),
    ("only draining, there", "2 n2 draining", CLUSTER, LOCAL, "2|2|DROP"),
    ("draining beside ready", "1 n1 draining|2 n2", CLUSTER, LOCAL, "2|2|1"),
]


@pytest.mark.parametrize("which", Family, ids=lambda one: one.label)
@pytest.mark.parametrize(
    ("endpoints", "internal", "external", "views"),
    [r[1:] for r in VIEWS],
    ids=[r[0] for r in VIEWS],
)
def test_views(
    endpoints: str, internal: Policy, external: Policy, views: str, which: Family
) -> None:
    """A view offers what its policy allows; an empty one refuses, or waits for others."""
    one = planned(
        *filter(None, endpoints.split("|")), which=which,
        internal_policy=internal, external_policy=external,
    )  # fmt: skip
    assert "|".join(listed(one, view) for view in View) == views
    assert one.drops() == ("DROP" in views)


def test_without_external_frontends_only_the_first_view_lists() -> None:
    """A service with a cluster IP alone spends nothing on views that nothing leads to."""
    one = planned("1 n1", "2 n2", node_port=0)
    assert {backend.views & ~BackendFlag.HERE for backend in one.backends} == {1 << View.CLUSTER_IP}


def test_backends_of_this_node_are_marked() -> None:
    """By the node's name, or by an address of this node where the endpoint names no node."""
    addresses = (parse("10.0.0.3"), parse("fd00::3"))
    for which in Family:
        (one,) = plan(
            service("web", "10.96.0.1" if which is Family.IPV4 else "fd00::1"),
            [slice_of("web", "1 n1", "2 n2", "3 -", "4 -", "5 n1 draining", which=which)],
            Here("n1", "", addresses),
        )
        here = [bool(backend.views & BackendFlag.HERE) for backend in one.backends]
        assert here == [True, False, True, False, True]


def test_a_backend_in_no_view_is_kept() -> None:
    """A draining endpoint beside ready ones keeps its flows and gets no new ones."""
    one = planned("1 n1 draining", "2 n1")
    assert [(b.state, b.views & ~BackendFlag.HERE) for b in one.backends] == [
        (BackendState.TERMINATING, 0),
        (BackendState.READY, 7),
    ]


def ranges(*texts: str, which: Family = Family.IPV4, **fields: Any) -> Plan:
    """A load balancer's plan with these source ranges."""
    return planned(
        which=which, source_ranges=tuple(map(parse_prefix, texts)),
        load_balancer_ips=tuple(map(parse, BALANCER.values())), **fields,
    )  # fmt: skip


@pytest.mark.parametrize("which", Family, ids=lambda one: one.label)
def test_ranges_guard_load_balancer_addresses_only(which: Family) -> None:
    """The node port and the cluster IP beside them stay open."""
    one = ranges("10.0.0.0/8", "fd01::/16", which=which)
    flagged = [TYPES[f.type] for f in one.frontends if f.flags == FrontendFlag.RANGES]
    assert flagged == ["LoadBalancer"]
    expected = {Family.IPV4: "10.0.0.0/8", Family.IPV6: "fd01::/16"}[which]
    assert [str(prefix) for prefix in one.ranges] == [expected]
    assert one.drops()


def test_ranges_of_the_other_family_open_this_one() -> None:
    """A list without any IPv6 range does not shut IPv6 out."""
    one = ranges("10.0.0.0/8", which=Family.IPV6)
    assert (one.ranges, {f.flags for f in one.frontends}) == ((), {0})


def test_ranges_without_a_load_balancer_address_are_nothing() -> None:
    """Nothing leads to them."""
    assert planned(source_ranges=(parse_prefix("10.0.0.0/8"),)).ranges == ()


@pytest.mark.parametrize("which", Family, ids=lambda one: one.label)
def test_where_the_node_may_come_in_so_may_the_address_itself(which: Family) -> None:
    """A node that talks to an address that it holds may be given that address as its source."""
    own = {Family.IPV4: "192.0.2.0/24", Family.IPV6: "2001:db8::/64"}[which]
    expected = {Prefix((parse(BALANCER[which]), 128)), parse_prefix(own)}
    assert set(ranges(own, which=which).ranges) == expected


def test_affinity_is_seconds() -> None:
    """Passed on as it is."""
    assert planned(affinity_seconds=10800).affinity_seconds == 10800


def test_port_names_join_and_numbers_do_not() -> None:
    """The slice's number counts, under the service port's name and protocol."""
    made = service("web", "10.96.0.10", ports=(ServicePort("http", Protocol.UDP, 80),))
    ports = (SlicePort("http", Protocol.UDP, 9000), SlicePort("http", Protocol.TCP, 9001))
    (one,) = plan(made, [slice_of("web", "1", ports=ports)], N1)
    assert [(show(b.address), b.port) for b in one.backends] == [(BASE[Family.IPV4] + "1", 9000)]


ENDPOINTS = st.tuples(
    st.integers(1, 9),
    st.sampled_from(["n1", "n2", "-"]),
    st.sampled_from(["-", "draining", "unready"]),
).map(lambda parts: " ".join(map(str, parts)))


@given(
    groups=st.lists(st.lists(ENDPOINTS, max_size=4), max_size=3),
    data=st.data(),
    internal=st.sampled_from(Policy),
    external=st.sampled_from(Policy),
)
def test_a_plan_is_a_function_of_the_set(
    groups: list[list[str]], data: st.DataObject, internal: Policy, external: Policy
) -> None:
    """The order of endpoints and slices, and who stands in which slice, decide nothing."""
    made = service(
        "web", "10.96.0.10", node_port=30080, internal_policy=internal, external_policy=external
    )
    slices = [slice_of("web", *group, part=str(n)) for n, group in enumerate(groups)]
    everything = [one for group in groups for one in group]
    once = slice_of("web", *data.draw(st.permutations(everything)))
    assert plan(made, slices, N1) == plan(made, data.draw(st.permutations(slices)), N1)
    assert plan(made, slices, N1) == plan(made, [once], N1)


@given(endpoints=st.lists(ENDPOINTS, max_size=6), internal=st.sampled_from(Policy))
def test_backends_are_sorted_and_whole(endpoints: list[str], internal: Policy) -> None:
    """Each address and port once, in order; a view is empty exactly where nobody is in it."""
    one = planned(*endpoints, internal_policy=internal)
    places = [(b.address, b.port) for b in one.backends]
    assert places == sorted(set(places))
    for view in View:
        if one.empty[view] == Empty.DROP:
            assert one.backends
            assert not any(b.views & 1 << view for b in one.backends)


def test_another_node_has_another_plan() -> None:
    """Local is this node's own, and a node without a name has none."""
    made = service("web", "10.96.0.10", internal_policy=LOCAL)
    part = slice_of("web", "1 n1", "2 n2")
    (there,) = plan(made, [part], msgspec.structs.replace(N1, name="n2"))
    (nowhere,) = plan(made, [part], msgspec.structs.replace(N1, name=""))
    assert [listed(one, View.CLUSTER_IP) for one in (there, nowhere)] == ["2", "DROP"]


@pytest.mark.parametrize(
    ("of_node", "of_service", "protocol", "is_dsr"),
    [
        (Way.SNAT, None, Protocol.TCP, False),
        (Way.DSR, None, Protocol.TCP, True),
        (Way.DSR, None, Protocol.UDP, True),
        (Way.HYBRID, None, Protocol.TCP, True),
        (Way.HYBRID, None, Protocol.UDP, False),
        (Way.SNAT, Way.DSR, Protocol.UDP, True),
        (Way.DSR, Way.SNAT, Protocol.TCP, False),
        (Way.SNAT, Way.HYBRID, Protocol.UDP, False),
    ],
)
def test_the_way_to_other_nodes(
    of_node: Way, of_service: Way | None, protocol: Protocol, *, is_dsr: bool
) -> None:
    """The service's own wish wins over the node's; all its frontends have it."""
    one = service(
        "web", "10.96.0.10", ports=(ServicePort("", protocol, 80, 30080),), forwarding=of_service
    )
    (made,) = plan(one, [], msgspec.structs.replace(N1, forwarding=of_node))
    assert {bool(frontend.flags & FrontendFlag.DSR) for frontend in made.frontends} == {is_dsr}


@pytest.mark.parametrize(
    ("of_node", "of_service", "way", "is_opt"),
    [
        (Dispatch.IPIP, None, Way.DSR, False),
        (Dispatch.OPT, None, Way.DSR, True),
        (Dispatch.OPT, None, Way.SNAT, False),
        (Dispatch.IPIP, Dispatch.OPT, Way.DSR, True),
        (Dispatch.OPT, Dispatch.IPIP, Way.DSR, False),
    ],
)
def test_how_the_other_node_hears_of_it(
    of_node: Dispatch, of_service: Dispatch | None, way: Way, *, is_opt: bool
) -> None:
    """By an option where the service says so, or else the node; SNAT needs neither."""
    one = msgspec.structs.replace(service("web", "10.96.0.10"), dispatch=of_service)
    (made,) = plan(one, [], msgspec.structs.replace(N1, forwarding=way, dispatch=of_node))
    assert {bool(frontend.flags & FrontendFlag.OPT) for frontend in made.frontends} == {is_opt}


def test_no_direct_answers_before_all_nodes_are_known() -> None:
    """Whatever asks for them: the backend's node takes packets from nodes that it knows only."""
    one = msgspec.structs.replace(service("web", "10.96.0.10"), forwarding=Way.DSR)
    for here, is_dsr in ((N1, True), (msgspec.structs.replace(N1, knows_nodes=False), False)):
        (made,) = plan(one, [], msgspec.structs.replace(here, forwarding=Way.DSR))
        assert {bool(frontend.flags & FrontendFlag.DSR) for frontend in made.frontends} == {is_dsr}
