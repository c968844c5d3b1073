"""From Kubernetes objects to the model: one row for each rule of kube-proxy, and junk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import Family, parse, parse_prefix
from lb.model import (
    Change,
    EndpointSlice,
    Key,
    Kind,
    Node,
    Policy,
    Protocol,
    Refused,
    Service,
    ServiceName,
    ServicePort,
    SlicePort,
)
from lb.sources import objects
from lb.sources.convert import convert, from_plain
from lb.sources.notes import MOST
from lb.sources.slice import trigger_time

Plain = dict[str, Any]
V4, V6 = Family.IPV4, Family.IPV6
PORTS = [{"name": "http", "port": 80}]
SERVICE_NAME = "kubernetes.io/service-name"


def service(spec: Plain | None = None, status: Plain | None = None, **metadata: Any) -> Change:
    """What becomes of a Service; `spec` is added to one that is good."""
    good = {"clusterIP": "10.96.0.1", "ports": PORTS}
    change = from_plain(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", **metadata},
            "spec": good | (spec or {}),
            "status": status,
        }
    )
    assert isinstance(change, Change)
    return change


def taken(change: Change) -> Service:
    """The service of a change that has one."""
    assert isinstance(change.value, Service), change.refused
    return change.value


def sliced(fields: Plain | None = None, **metadata: Any) -> Change:
    """What becomes of an EndpointSlice; `fields` are added to one that is good."""
    change = from_plain(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {SERVICE_NAME: "web"}, **metadata},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
            **(fields or {}),
        }
    )
    assert isinstance(change, Change)
    return change


def taken_slice(change: Change) -> EndpointSlice:
    """The slice of a change that has one."""
    assert isinstance(change.value, EndpointSlice), change.refused
    return change.value


def reasons(change: Change) -> list[str]:
    """What was left out."""
    return [one.reason for one in change.refused]


@pytest.mark.parametrize(
    ("spec", "metadata", "reason"),
    [
        ({}, {"labels": {"service.kubernetes.io/service-proxy-name": "x"}}, "another proxy"),
        ({}, {"labels": {"service.kubernetes.io/service-proxy-name": ""}}, "another proxy"),
        ({}, {"labels": {"service.kubernetes.io/service-proxy-name": None}}, "another proxy"),
        ({"type": "ExternalName"}, {}, "ExternalName"),
        ({"clusterIP": "None"}, {}, "spec.clusterIP is None: headless"),
        ({"clusterIP": ""}, {}, "spec.clusterIP is empty"),
        ({"clusterIP": None, "externalIPs": ["192.0.2.1"]}, {}, "spec.clusterIP is empty"),
    ],
)
def test_services_left_alone_are_no_fault(spec: Plain, metadata: Plain, reason: str) -> None:
    """What Kubernetes itself says to leave alone is None with a note that is not wrong."""
    change = service(spec, **metadata)
    assert change.value is None
    assert [(one.reason.startswith(reason), one.wrong) for one in change.refused] == [(True, False)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"clusterIP": "10.96.0.1"}, {V4: "10.96.0.1"}),
        ({"clusterIP": "fd00::1"}, {V6: "fd00::1"}),
        ({"clusterIP": "::ffff:10.96.0.1"}, {V4: "10.96.0.1"}),
        ({"clusterIP": "172.30.0.041"}, {V4: "172.30.0.41"}),
        (
            {"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.96.0.1"],
             "ipFamilies": ["IPv6", "IPv4"]},
            {V6: "fd00::1", V4: "10.96.0.1"},
        ),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"]}, {V4: "10.96.0.1", V6: "fd00::1"}),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4"]}, {V4: "10.96.0.1"}),
        ({"clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4", "IPv6"]}, {V4: "10.96.0.1"}),
        ({"clusterIPs": ["10.96.0.1", "x"], "ipFamilies": ["IPv4", "IPv6"]}, {V4: "10.96.0.1"}),
        ({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}, {V4: "10.96.0.1"}),
        ({"clusterIPs": ["fd00::1", "fd00::2"], "ipFamilies": ["IPv4", "IPv6"]}, {V6: "fd00::2"}),
    ],
)  # fmt: skip
def test_cluster_ips_by_family(spec: Plain, expected: dict[Family, str]) -> None:
    """Each family's address stands at the family's index; a malformed one harms not the other."""
    found = taken(service(spec)).cluster_ips
    assert found == {family: parse(text) for family, text in expected.items()}


@pytest.mark.parametrize("ip", ["10.96.0", "x" * 100_000, "0.0.0.0", "::", "10.96.0.1\n", "127.1"])
def test_a_service_without_a_usable_address_is_refused(ip: str) -> None:
    """With a short reason that names the field, whatever the text."""
    change = service({"clusterIP": ip})
    assert change.value is None
    assert change.refused[0].subject == "Service default/web"
    assert change.refused[0].reason.startswith("spec.clusterIPs[0]: ")
    assert all(len(reason) < 200 and "\n" not in reason for reason in reasons(change))


@pytest.mark.parametrize(
    ("ports", "expected", "refused"),
    [
        ([{"port": 80}], [ServicePort("", Protocol.TCP, 80)], []),
        (None, [], []),
        ([], [], []),
        (
            [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "a", "port": 53}],
            [ServicePort("a", Protocol.UDP, 53), ServicePort("a", Protocol.TCP, 53)],
            [],
        ),
        ([{"port": 80, "protocol": "SCTP"}], [ServicePort("", Protocol.SCTP, 80)], []),
        ([{"port": 80, "nodePort": 30080}], [ServicePort("", Protocol.TCP, 80, 30080)], []),
        (
            [{"port": 80, "protocol": "TPC"}],
            [],
            ["spec.ports[0].protocol: 'TPC' is not TCP, UDP or SCTP"],
        ),
        ([{}], [], ["spec.ports[0].port: missing, a port is 1 to 65535"]),
        ([{"port": 0}], [], ["spec.ports[0].port: '0', a port is 1 to 65535"]),
        ([{"port": 65536}], [], ["spec.ports[0].port: '65536', a port is 1 to 65535"]),
        (
            [{"port": -1}, {"port": 443}],
            [ServicePort("", Protocol.TCP, 443)],
            ["spec.ports[0].port: '-1', a port is 1 to 65535"],
        ),
        (
            [{"port": 80, "nodePort": 65536}],
            [ServicePort("", Protocol.TCP, 80)],
            ["spec.ports[0].nodePort: '65536', a port is 1 to 65535"],
        ),
        (
            [{"name": "a", "port": 80}, {"name": "a", "port": 81}],
            [ServicePort("a", Protocol.TCP, 80)],
            ["spec.ports[1].name: 'a' is used twice for TCP"],
        ),
        (
            [{"name": "a", "port": 80}, {"name": "b", "port": 80}],
            [ServicePort("a", Protocol.TCP, 80)],
            ["spec.ports[1].port: 80 is used twice for TCP"],
        ),
        (
            [{"name": "a", "port": 80, "nodePort": 30000},
             {"name": "b", "port": 81, "nodePort": 30000}],
            [ServicePort("a", Protocol.TCP, 80, 30000), ServicePort("b", Protocol.TCP, 81)],
            ["spec.ports[1].nodePort: 30000 is used twice for TCP"],
        ),
        ([{"name": "a\nb", "port": 80}], [], ["spec.ports[0].name: 'a\\nb' is not a port name"]),
    ],
)  # fmt: skip
def test_service_ports(ports: Any, expected: list[ServicePort], refused: list[str]) -> None:
    """A malformed or repeated port is left out by name; the others are served."""
    change = service({"ports": ports})
    assert list(taken(change).ports) == expected
    assert reasons(change) == refused


def test_external_ips() -> None:
    """All families, each once, normalised; what is no address is left out by name."""
    change = service({"externalIPs": ["192.0.2.001", "2001:db8::1", "192.0.2.1", "", "a.example"]})
    assert taken(change).external_ips == (parse("192.0.2.1"), parse("2001:db8::1"))
    assert reasons(change) == [
        "spec.externalIPs[3]: '' is not an IP address",
        "spec.externalIPs[4]: 'a.example' is not an IP address",
    ]


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        ({"ip": "192.0.2.1"}, True),
        ({"ip": "192.0.2.1", "ipMode": "VIP"}, True),
        ({"ip": "192.0.2.1", "ipMode": "Proxy"}, False),
        ({"ip": "192.0.2.1", "ipMode": "Other"}, False),
        ({"hostname": "lb.example"}, False),
        ({"hostname": "lb.example", "ip": ""}, False),
        ({"hostname": "lb.example", "ip": "192.0.2.1"}, True),
    ],
)
def test_load_balancer_addresses(ingress: Plain, *, expected: bool) -> None:
    """Captured unless the mode says otherwise; names never are; each ingress by itself."""
    always = {"ip": "2001:db8::1"}
    change = service(status={"loadBalancer": {"ingress": [ingress, always]}})
    wanted = (parse("192.0.2.1"),) * expected + (parse("2001:db8::1"),)
    assert taken(change).load_balancer_ips == wanted


@pytest.mark.parametrize(
    ("ranges", "expected", "served"),
    [
        (None, [], [V4, V6]),
        ([" 198.51.100.0/24 "], ["198.51.100.0/24"], [V4, V6]),
        (["203.0.113.000/025"], ["203.0.113.0/25"], [V4, V6]),
        (["198.51.100.0/24", "0.0.0.0/0"], [], [V4, V6]),
        (["198.51.100.0/24", "::/0"], ["198.51.100.0/24"], [V4, V6]),
        (["198.51.100.0/24", "2001:db8::/32"], ["198.51.100.0/24", "2001:db8::/32"], [V4, V6]),
        (["198.51.100.0/24", "x/24"], ["198.51.100.0/24"], [V4, V6]),
        (["198.51.100.0/240"], [], [V6]),
        (["2001:db8::/129", "198.51.100.0/24"], ["198.51.100.0/24"], [V4]),
        (["10.0.0.0/" + "9" * 5000], [], [V6]),
    ],
)
def test_source_ranges(ranges: Any, expected: list[str], served: list[Family]) -> None:
    """A /0 means open; a family of which no range is usable is shut, never opened by that."""
    ingress = [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]
    change = service({"loadBalancerSourceRanges": ranges}, {"loadBalancer": {"ingress": ingress}})
    addresses = {V4: parse("192.0.2.1"), V6: parse("2001:db8::1")}
    assert taken(change).source_ranges == tuple(parse_prefix(text) for text in expected)
    assert taken(change).load_balancer_ips == tuple(addresses[family] for family in served)


@pytest.mark.parametrize(
    ("spec", "seconds", "refused"),
    [
        ({}, 0, 0),
        ({"sessionAffinity": "None"}, 0, 0),
        ({"sessionAffinity": "ClientIP"}, 10800, 0),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {}}, 10800, 0),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": None}}, 10800, 0),
        (
            {"sessionAffinity": "ClientIP",
             "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}},
            86400,
            0,
        ),
        (
            {"sessionAffinity": "ClientIP",
             "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
            10800,
            1,
        ),
        (
            {"sessionAffinity": "ClientIP",
             "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
            10800,
            1,
        ),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}, 0, 0),
        ({"sessionAffinity": "Cookie"}, 0, 1),
    ],
)  # fmt: skip
def test_session_affinity(spec: Plain, seconds: int, refused: int) -> None:
    """Off unless ClientIP; the API's default where the timeout is missing or out of range."""
    change = service(spec)
    assert (taken(change).affinity_seconds, len(change.refused)) == (seconds, refused)


@pytest.mark.parametrize(
    ("text", "policy", "refused"),
    [
        (None, Policy.CLUSTER, 0),
        ("", Policy.CLUSTER, 0),
        ("Cluster", Policy.CLUSTER, 0),
        ("Local", Policy.LOCAL, 0),
        ("local", Policy.CLUSTER, 1),
    ],
)
def test_policies(text: str | None, policy: Policy, refused: int) -> None:
    """Cluster unless Local; another word is named and means the default."""
    change = service({"internalTrafficPolicy": text})
    assert (taken(change).internal_policy, len(change.refused)) == (policy, refused)
    change = service({"externalTrafficPolicy": text})
    assert (taken(change).external_policy, len(change.refused)) == (policy, refused)


@pytest.mark.parametrize(
    ("kind", "policy", "port", "expected"),
    [
        ("LoadBalancer", "Local", 30001, 30001),
        ("LoadBalancer", "Cluster", 30001, 0),
        ("NodePort", "Local", 30001, 0),
        ("LoadBalancer", "Local", None, 0),
        ("LoadBalancer", "Local", 70000, 0),
    ],
)
def test_health_check_node_port(kind: str, policy: str, port: int | None, expected: int) -> None:
    """Only load balancers with the external policy Local are asked for their health."""
    spec = {"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port}
    assert taken(service(spec)).health_check_node_port == expected


def test_only_own_annotations_are_kept() -> None:
    """Others are not copied, however large; an own one only as large as Kubernetes allows."""
    change = service(
        annotations={"other": "x" * 10_000_000, "tidegate.io/algorithm": "random",
                     "tidegate.io/weight": "x" * 10_000_000, "tidegate.io/forwarding": None},
    )  # fmt: skip
    kept = {"tidegate.io/algorithm": "random", "tidegate.io/forwarding": ""}
    assert taken(change).annotations == kept
    assert len(change.refused) == 1
    assert len(str(change.refused)) < 300


@pytest.mark.parametrize(
    ("fields", "metadata", "reason", "wrong"),
    [
        ({}, {"labels": {SERVICE_NAME: "web", "service.kubernetes.io/headless": ""}},
         "belongs to a headless service", False),
        ({}, {"labels": {}}, "the label kubernetes.io/service-name is missing", True),
        ({}, {"labels": None}, "the label kubernetes.io/service-name is missing", True),
        ({}, {"labels": {SERVICE_NAME: ""}}, "the label kubernetes.io/service-name", True),
        ({"addressType": "FQDN"}, {}, "addressType is FQDN", False),
        ({"addressType": "IPv5"}, {}, "addressType is neither IPv4 nor IPv6", True),
        ({"addressType": None}, {}, "addressType is neither IPv4 nor IPv6", True),
    ],
)  # fmt: skip
def test_slices_left_out(fields: Plain, metadata: Plain, reason: str, *, wrong: bool) -> None:
    """Headless and FQDN are no fault; a slice of no service, or of no family, is."""
    change = sliced(fields, **metadata)
    assert change.value is None
    assert [(one.reason.startswith(reason), one.wrong) for one in change.refused] == [(True, wrong)]


@pytest.mark.parametrize(
    ("ports", "expected", "refused"),
    [
        ([{"name": "", "port": 1}], [SlicePort("", Protocol.TCP, 1)], 0),
        ([{"name": "a", "port": 53, "protocol": "UDP"}], [SlicePort("a", Protocol.UDP, 53)], 0),
        ([{"port": 80}], [], 1),
        ([{"name": None, "port": 80}], [], 1),
        ([{"name": "a"}], [], 1),
        ([{"name": "a", "port": None}, {"name": "b", "port": 1}],
         [SlicePort("b", Protocol.TCP, 1)], 1),
        ([{"name": "a", "port": 0}], [], 1),
        ([{"name": "a", "port": 65536}], [], 1),
        ([{"name": "a", "port": 1, "protocol": "X"}], [], 1),
        ([{"name": "a", "port": 1}, {"name": "a", "port": 2}],
         [SlicePort("a", Protocol.TCP, 1)], 1),
        (None, [], 0),
    ],
)  # fmt: skip
def test_slice_ports(ports: Any, expected: list[SlicePort], refused: int) -> None:
    """A port without name or number is left out, and disturbs no other."""
    change = sliced({"ports": ports})
    assert (list(taken_slice(change).ports), len(change.refused)) == (expected, refused)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, (True, True, False)),
        ({}, (True, True, False)),
        ({"ready": None, "serving": None, "terminating": None}, (True, True, False)),
        ({"ready": False}, (False, True, False)),
        ({"ready": True, "serving": False}, (True, False, False)),
        ({"ready": False, "serving": True, "terminating": True}, (False, True, True)),
    ],
)
def test_condition_defaults(conditions: Any, expected: tuple[bool, bool, bool]) -> None:
    """Unknown means ready, serving, and not terminating."""
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": conditions}]
    found = taken_slice(sliced({"endpoints": endpoints})).endpoints[0]
    assert (found.ready, found.serving, found.terminating) == expected


@pytest.mark.parametrize(
    ("family", "addresses", "expected"),
    [
        ("IPv4", ["10.0.0.1", "10.0.0.2"], "10.0.0.1"),
        ("IPv4", ["10.0.0.01"], "10.0.0.1"),
        ("IPv4", ["::ffff:10.0.0.1"], "10.0.0.1"),
        ("IPv6", ["fd00:0::1"], "fd00::1"),
        ("IPv4", ["fd00::1"], None),
        ("IPv6", ["10.0.0.1"], None),
        ("IPv6", ["::ffff:10.0.0.1"], None),
        ("IPv4", [], None),
        ("IPv4", None, None),
        ("IPv4", ["pod.example"], None),
        ("IPv4", ["0.0.0.0"], None),
        ("IPv6", ["::"], None),
    ],
)
def test_endpoint_addresses(family: str, addresses: Any, expected: str | None) -> None:
    """The first address counts if it is of the slice's family; else the endpoint is left out."""
    change = sliced({"addressType": family, "endpoints": [{"addresses": addresses}]})
    found = [endpoint.address for endpoint in taken_slice(change).endpoints]
    assert found == ([parse(expected)] if expected else [])
    assert len(change.refused) == (0 if expected else 1)


def test_endpoint_place_and_hints() -> None:
    """Node, zone and both kinds of hints are taken over; null and absent are the same."""
    hints = {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}
    endpoints = [
        {"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "a", "hints": hints},
        {"addresses": ["10.0.0.2"], "nodeName": None, "zone": None, "hints": None},
        {"addresses": ["10.0.0.3"], "hints": {"forZones": None, "forNodes": []}},
    ]
    first, *others = taken_slice(sliced({"endpoints": endpoints})).endpoints
    assert (first.node, first.zone) == ("n1", "a")
    assert (first.zone_hints, first.node_hints) == (("a", "b"), ("n1",))
    assert {(e.node, e.zone, e.zone_hints, e.node_hints) for e in others} == {("", "", (), ())}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:01+01:00", 1.0),
        ("1970-01-01T00:00:01", 0.0),
        ("yesterday", 0.0),
        ("0001-01-01T00:00:00+23:59", pytest.approx(-62135683140.0)),
        ("", 0.0),
        (None, 0.0),
    ],
)
def test_trigger_time(text: str | None, expected: float) -> None:
    """RFC 3339 with up to nine digits; what cannot be read is unknown, not an error."""
    assert trigger_time(text) == expected


def test_nodes() -> None:
    """Zone, addresses internal first, pod ranges; names and malformed parts are left out."""
    change = from_plain(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd01::/64", "x"]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "InternalIP", "address": "192.168.0.1"},
                    {"type": "InternalIP", "address": "fd02::1"},
                ]
            },
        }
    )
    assert isinstance(change, Change)
    assert change.value == Node(
        "n1",
        "a",
        (parse("192.168.0.1"), parse("fd02::1"), parse("203.0.113.1")),
        (parse_prefix("10.1.0.0/24"), parse_prefix("fd01::/64")),
    )
    assert len(change.refused) == 1


@pytest.mark.parametrize(
    ("value", "subject", "reason"),
    [
        (None, "object", "no Kubernetes object"),
        ([1], "object", "no Kubernetes object"),
        ({}, "object (without a name)", "kind is missing"),
        ({"kind": "Service", "metadata": {"name": "x"}}, "Service x", "unknown kind ' Service'"),
        (
            {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "x"}},
            "Service x",
            "unknown kind 'serving.knative.dev/v1 Service'",
        ),
        ({"apiVersion": "v1", "kind": "Service"}, "Service (without a name)", "not a name"),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {}}, "Service ''", "not a name"),
        (
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a\nb"}},
            "Service 'a\\nb'",
            "not a name",
        ),
    ],
)
def test_what_cannot_be_named_is_refused(value: object, subject: str, reason: str) -> None:
    """Values that are no object of ours, or one without a name, are said to be so."""
    found = from_plain(value)
    assert isinstance(found, Refused)
    assert found.subject == subject
    assert reason in found.reason


def test_pods_are_accepted() -> None:
    """A Pod is no unknown kind; nothing is read of it."""
    assert from_plain({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"ports": "http"}, "spec.ports: "),
        ({"ports": [{"port": "eighty"}]}, "spec.ports[0].port: "),
        ({"clusterIP": 1}, "spec.clusterIP: "),
        ({"externalIPs": [None]}, "spec.externalIPs[0]: "),
    ],
)
def test_a_wrong_type_refuses_the_object_by_field(spec: Plain, reason: str) -> None:
    """As the API server does; the object keeps its key, so that a source can know what it was."""
    change = service(spec)
    assert (change.key, change.value) == (Key(Kind.SERVICE, "default", "web"), None)
    assert change.refused[0].reason.startswith(reason)


def test_refusals_of_one_object_are_bounded() -> None:
    """A thousand malformed endpoints are a few lines and a count."""
    change = sliced({"endpoints": [{"addresses": [f"x{i}"]} for i in range(1000)]})
    assert len(change.refused) == MOST + 1
    assert change.refused[-1].reason == f"and {1000 - MOST} more parts are malformed"


@pytest.mark.parametrize("number", [16**5000, -(16**5000), 2**64], ids=["+", "-", "64"])
def test_numbers_of_any_length_are_one_short_line(number: int) -> None:
    """A hexadecimal number in YAML may have more digits than Python is willing to show."""
    affinity = {"clientIP": {"timeoutSeconds": number}}
    change = service(
        {
            "ports": [{"port": number, "nodePort": number}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": affinity,
        }
    )
    assert taken(change).ports == ()
    assert all(len(reason) < 200 for reason in reasons(change))
    assert isinstance(from_plain([number]), Refused)


def test_values_of_any_depth_are_answered() -> None:
    """Nesting that would exhaust the interpreter's stack is cut short."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert isinstance(from_plain(deep), Refused)
    assert service({"ports": deep}).value is None


def test_equal_parts_are_shared() -> None:
    """Slices with equal ports hold one tuple: a hundred thousand endpoints must fit in memory."""
    first, second = taken_slice(sliced()), taken_slice(sliced())
    assert first.ports is second.ports
    assert first.service == ServiceName("default", "web")


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["10.0.0.1", "fd00::1", "None", "IPv4", "IPv6", "Local", "10.0.0.0/8", "web"]),
)
FIELDS = sorted(
    {
        field.encode_name
        for kind in vars(objects).values()
        if isinstance(kind, type) and issubclass(kind, objects.Object)
        for field in msgspec.structs.fields(kind)
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)
KINDS = st.sampled_from([*objects.TYPES, *objects.LATER, ("v1", "List"), ("", "")])


@given(JSON)
def test_any_json_is_answered(value: object) -> None:
    """No JSON value whatever raises."""
    assert isinstance(from_plain(value), Change | Refused | None)


@given(KINDS, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8), JSON)
def test_any_fields_are_answered(kind: tuple[str, str], fields: Plain, metadata: Any) -> None:
    """An object of a known kind with any fields: a change with its key, or a refusal."""
    named = {"metadata": {"name": "x"}} if metadata is None else {"metadata": metadata}
    value = {"apiVersion": kind[0], "kind": kind[1], **fields, **named}
    assert isinstance(from_plain(value), Change | Refused | None)


@given(
    st.fixed_dictionaries(
        {
            "clusterIP": TEXTS,
            "clusterIPs": st.none() | st.lists(TEXTS, max_size=3),
            "ipFamilies": st.none() | st.lists(TEXTS, max_size=3),
            "externalIPs": st.lists(TEXTS, max_size=3),
            "loadBalancerSourceRanges": st.lists(TEXTS, max_size=3),
            "ports": st.lists(
                st.fixed_dictionaries(
                    {"name": TEXTS, "port": st.integers(), "nodePort": st.integers()}
                ),
                max_size=3,
            ),
        }
    )
)
def test_whatever_is_taken_is_valid(spec: Plain) -> None:
    """A service that results has addresses under their family, and ports within range, once."""
    change = convert(msgspec.convert({"metadata": {"name": "x"}, "spec": spec}, objects.Service))
    assert isinstance(change, Change)
    if isinstance(change.value, Service):
        ports = change.value.ports
        assert change.value.cluster_ips
        assert all(1 <= port.port <= 65535 and 0 <= port.node_port <= 65535 for port in ports)
        assert len({(port.name, port.protocol) for port in ports}) == len(ports)
        assert len({(port.port, port.protocol) for port in ports}) == len(ports)
