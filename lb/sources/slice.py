"""A typed EndpointSlice to the model's, by kube-proxy's rules for each field. Pure; never raises.

A cold start brings a hundred thousand endpoints through here: names of nodes and zones are
interned, equal tuples of ports and hints are shared.
"""

from __future__ import annotations

from array import array
from datetime import datetime
from functools import lru_cache
from sys import intern
from zlib import crc32

from msgspec import UNSET

from lb.address import ANY, Family, family, parse
from lb.errors import BadAddress
from lb.model import Endpoint, EndpointSlice, Protocol, ServiceName, SliceName, SlicePort
from lb.sources import objects
from lb.sources.notes import Notes, brief

FAMILIES = {own.label: own for own in Family}
_ALWAYS = objects.Conditions()
_UNSPECIFIED = frozenset(ANY.values())


def endpoint_slice(
    name: SliceName, item: objects.EndpointSlice, notes: Notes
) -> EndpointSlice | None:
    """The slice, or None with the reason in `notes`."""
    labels = item.metadata.labels or objects.SliceLabels()
    if labels.headless is not UNSET:
        notes.add("belongs to a headless service, says its label", wrong=False)
        return None
    if not labels.service:
        notes.add("the label kubernetes.io/service-name is missing: belongs to no service")
        return None
    own = FAMILIES.get(item.address_type or "")
    if own is None:
        fqdn = item.address_type == "FQDN"
        shown = "FQDN, names are not balanced" if fqdn else "neither IPv4 nor IPv6"
        notes.add(f"addressType is {shown}", wrong=not fqdn)
        return None
    annotations = item.metadata.annotations
    endpoints, pods, names = _endpoints(item.endpoints or [], own, notes)
    return EndpointSlice(
        name=name,
        service=ServiceName(name.namespace, intern(labels.service)),
        family=own,
        ports=_ports(item.ports or [], notes),
        endpoints=endpoints,
        pods=pods,
        pod_names=names,
        trigger_time=trigger_time(annotations.trigger_time) if annotations is not None else 0.0,
    )


def trigger_time(text: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0.0 if it is none, or not given."""
    if not text:
        return 0.0
    try:
        time = datetime.fromisoformat(text)
        return time.timestamp() if time.tzinfo is not None else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _ports(items: list[objects.EndpointPort], notes: Notes) -> tuple[SlicePort, ...]:
    """The ports that can be reached; of two with one name and protocol the first."""
    ports: dict[tuple[str, Protocol], SlicePort] = {}
    for i, item in enumerate(items):
        field = f"ports[{i}]"
        if item.name is None:
            notes.add(f"{field}.name: missing, so no service port can name it")
            continue
        name = notes.port_name(f"{field}.name", item.name)
        protocol = notes.protocol(f"{field}.protocol", item.protocol)
        number = notes.port(f"{field}.port", item.port)
        if name is None or protocol is None or number is None:
            continue
        if (name, protocol) in ports:
            notes.add(f"{field}.name: {name!r} is used twice for {protocol.name}")
            continue
        ports[name, protocol] = SlicePort(intern(name), protocol, number)
    return _shared(tuple(ports.values()))


def _endpoints(
    items: list[objects.Endpoint], own: Family, notes: Notes
) -> tuple[tuple[Endpoint, ...], bytes, str]:
    """The endpoints that can be reached, in the slice's order, their pods, and those' names."""
    endpoints, names = [], []
    pods = array("I")
    for i, item in enumerate(items):
        try:
            # Only the first counts; the API leaves it to the reader.
            text = item.addresses[0] if item.addresses else ""
            address = parse(text)
        except BadAddress:
            shown = f"{brief(text)} is not an IP address" if text else "missing"
            notes.add(f"endpoints[{i}].addresses[0]: {shown}")
            continue
        if family(address) is not own or address in _UNSPECIFIED:
            notes.add(f"endpoints[{i}].addresses[0]: {text!r} is not a usable {own.label} address")
            continue
        target = item.target_ref
        is_pod = target is not None and target.kind == "Pod" and target.name
        pods.append(crc32(target.name.encode()) if target and target.name and is_pod else 0)
        names.append(target.name if target and target.name and is_pod else "")
        conditions = item.conditions or _ALWAYS
        hints = item.hints
        endpoints.append(
            Endpoint(
                address,
                intern(item.node_name) if item.node_name else "",
                intern(item.zone) if item.zone else "",
                conditions.ready is not False,
                conditions.serving is not False,
                conditions.terminating is True,
                _names(hints.for_zones) if hints is not None and hints.for_zones else (),
                _names(hints.for_nodes) if hints is not None and hints.for_nodes else (),
            )
        )
    return (
        tuple(endpoints),
        pods.tobytes() if any(pods) else b"",
        "\n".join(names) if any(names) else "",
    )


def _names(hints: list[objects.Hint]) -> tuple[str, ...]:
    return _shared_names(tuple([intern(hint.name) for hint in hints]))


@lru_cache(maxsize=4096)
def _shared(ports: tuple[SlicePort, ...]) -> tuple[SlicePort, ...]:
    return ports


@lru_cache(maxsize=4096)
def _shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return names
