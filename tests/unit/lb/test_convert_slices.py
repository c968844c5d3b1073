"""From EndpointSlices to the model: one row for each rule of kube-proxy."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

from lb.address import parse
from lb.model import Protocol, SlicePort
from lb.sources.slice import trigger_time
from tests.unit.lb.converted import SERVICE_NAME, Plain, sliced, taken_slice


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


def test_weights_find_their_pods() -> None:
    """By the pod's name or the address, past endpoints that are left out; nodes are no pods."""
    endpoints = [
        {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web-0"}},
        {"addresses": ["nonsense"], "targetRef": {"kind": "Pod", "name": "web-1"}},
        {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "web-2"}},
        {"addresses": ["10.0.0.3"], "targetRef": {"kind": "Node", "name": "web-0"}},
        {"addresses": ["10.0.0.4"], "targetRef": None},
    ]
    part = taken_slice(sliced({"endpoints": endpoints}))
    names = {crc32(name.encode()): n for n, name in enumerate(("web-0", "web-1", "web-2"), 2)}
    wanted = {parse("10.0.0.1"): 2, parse("10.0.0.2"): 4, parse("10.0.0.4"): 9}
    assert part.weighed({**names, parse("10.0.0.4"): 9}) == wanted
    bare = taken_slice(sliced({"endpoints": endpoints[-1:]}))
    assert bare.pods == b""
    assert bare.weighed(names) == {}
    assert not part.same_content(taken_slice(sliced({"endpoints": endpoints[1:]})))
