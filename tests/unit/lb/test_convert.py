"""From Kubernetes objects to the model: nodes, what is no object of ours, and junk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import parse, parse_prefix
from lb.model import (
    Change,
    HostPort,
    Key,
    Kind,
    Node,
    Pod,
    Protocol,
    Refused,
    Service,
    ServiceName,
)  # fmt: skip
from lb.sources import objects
from lb.sources.convert import convert, from_plain
from lb.sources.notes import MOST
from tests.unit.lb.converted import Plain, reasons, service, sliced, taken, taken_slice


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
    """A Pod without anything but its name is one without limits."""
    change = from_plain({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})
    assert change == Change(Key(Kind.POD, "default", "x"), Pod("x"))


def pod_with(**spec: Any) -> tuple[tuple[HostPort, ...], list[str]]:
    """The host ports of such a pod, and what was refused of it."""
    change = from_plain(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    )
    assert isinstance(change, Change)
    assert isinstance(change.value, Pod)
    return change.value.host_ports, [one.reason for one in change.refused]


TCP80 = {"containerPort": 80, "hostPort": 8080}
HOST_PORTS = [
    # spec, ports, reasons
    ({"containers": [{"ports": [TCP80]}]}, [HostPort(8080, 80, Protocol.TCP)], []),
    ({"containers": [{"ports": [{"containerPort": 80}]}, {"ports": None}, {}]}, [], []),
    ({"containers": [{"ports": [TCP80]}] * 2}, [HostPort(8080, 80, Protocol.TCP)], []),
    ({"hostNetwork": True, "containers": [{"ports": [TCP80]}]}, [], []),
    ({"initContainers": [{"ports": [TCP80]}]}, [], []),
    ({"initContainers": [{"ports": [TCP80], "restartPolicy": "Never"}]}, [], []),
    (
        {"initContainers": [{"ports": [TCP80], "restartPolicy": "Always"}]},
        [HostPort(8080, 80, Protocol.TCP)],
        [],
    ),
    (
        {"containers": [{"ports": [{**TCP80, "protocol": "UDP", "hostIP": "192.0.2.1"}]}]},
        [HostPort(8080, 80, Protocol.UDP, parse("192.0.2.1"))],
        [],
    ),
    (
        {"containers": [{"ports": [{**TCP80, "hostIP": one} for one in ("0.0.0.0", "::", "")]}]},
        [
            HostPort(8080, 80, Protocol.TCP, parse("0.0.0.0")),
            HostPort(8080, 80, Protocol.TCP, parse("::")),
            HostPort(8080, 80, Protocol.TCP),
        ],
        [],
    ),
    (
        {
            "containers": [
                {
                    "ports": [
                        {"containerPort": 80, "hostPort": 70000},
                        {"containerPort": 0, "hostPort": 80},
                        {**TCP80, "protocol": "ICMP"},
                        {**TCP80, "hostIP": "here"},
                        TCP80,
                    ]
                }
            ]
        },
        [HostPort(8080, 80, Protocol.TCP)],
        [
            "spec.containers[0].ports[0].hostPort: '70000', a port is 1 to 65535",
            "spec.containers[0].ports[1].containerPort: '0', a port is 1 to 65535",
            "spec.containers[0].ports[2].protocol: 'ICMP' is not TCP, UDP or SCTP",
            "spec.containers[0].ports[3].hostIP: 'here' is not an IP address",
        ],
    ),
]


@pytest.mark.parametrize(("spec", "ports", "reasons"), HOST_PORTS)
def test_host_ports(spec: dict[str, Any], ports: list[HostPort], reasons: list[str]) -> None:
    """Of containers that run side by side, each once; what is malformed is named, and no more."""
    assert pod_with(**spec) == (tuple(ports), reasons)


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
KINDS = st.sampled_from([*objects.TYPES, ("v1", "List"), ("", "")])


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


@pytest.mark.parametrize(
    ("metadata", "spec", "leaving"),
    [
        ({}, {}, False),
        ({}, {"taints": [{"key": "node.kubernetes.io/unschedulable"}]}, False),
        ({}, {"taints": [{"key": "a"}, {"key": "ToBeDeletedByClusterAutoscaler"}]}, True),
        ({"deletionTimestamp": "2026-11-21T16:00:00Z"}, {}, True),
        ({"deletionTimestamp": None}, {"taints": None}, False),
    ],
)
def test_a_node_that_is_about_to_go(metadata: Plain, spec: Plain, leaving: Any) -> None:
    """By its deletion, or the cluster autoscaler's taint; no other taint."""
    change = from_plain(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1", **metadata},
            "spec": spec,
        }
    )
    assert isinstance(change, Change)
    assert isinstance(change.value, Node)
    assert change.value.leaving is leaving
