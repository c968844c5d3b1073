"""From Services to the model: one row for each rule of kube-proxy."""

from __future__ import annotations

from typing import Any

import pytest

from lb.address import Family, parse, parse_prefix
from lb.model import Dispatch, Policy, Protocol, ServicePort, Way
from tests.unit.lb.converted import V4, V6, Plain, reasons, service, taken


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
        (
            [{"port": 80, "protocol": "SCTP"}, {"port": 80}],
            [ServicePort("", Protocol.TCP, 80)],
            ["spec.ports[0]: SCTP is not served; the other ports are"],
        ),
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


@pytest.mark.parametrize("way", Way)
def test_forwarding(way: Way) -> None:
    """One of three words."""
    assert taken(service(annotations={"tidegate.io/forwarding": way.value})).forwarding is way


def test_dispatch_is_the_service_s_own() -> None:
    """`tidegate.io/dsr-dispatch` is taken; another word is named, and left out."""
    name = "tidegate.io/dsr-dispatch"
    assert taken(service()).dispatch is None
    assert taken(service(annotations={name: "opt"})).dispatch is Dispatch.OPT
    change = service(annotations={name: "geneve"})
    assert taken(change).dispatch is None
    (note,) = change.refused
    assert note.reason == f"annotation {name}: 'geneve' is not ipip or opt"


@pytest.mark.parametrize("value", ["", "DSR", "ipip", "x" * 1000])
def test_another_word_for_forwarding_is_named(value: str) -> None:
    """The service is served as the node has it."""
    change = service(annotations={"tidegate.io/forwarding": value})
    assert taken(change).forwarding is None
    (note,) = change.refused
    assert "annotation tidegate.io/forwarding" in note.reason
    assert len(note.reason) < 200
