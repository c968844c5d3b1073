"""From a Kubernetes object to one change of the model. Pure; never raises, whatever it is given.

`convert` takes what is typed already, `from_plain` any JSON-shaped value. An object that cannot be
used is a change to None that says why; one that cannot even be named is a `Refused`.
The rules for Services and EndpointSlices have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from sys import intern
from typing import NamedTuple

import msgspec

from lb.model import Change, Key, Kind, Node, Refused, ServiceCIDR, ServiceName, SliceName
from lb.sources import objects
from lb.sources.notes import Notes, brief
from lb.sources.pod import pod
from lb.sources.service import service
from lb.sources.slice import endpoint_slice

KINDS: dict[type, Kind] = {
    objects.Service: Kind.SERVICE,
    objects.EndpointSlice: Kind.SLICE,
    objects.Node: Kind.NODE,
    objects.ServiceCIDR: Kind.SERVICE_CIDR,
    objects.Pod: Kind.POD,
}
LEAVING_TAINT = "ToBeDeletedByClusterAutoscaler"
"""What the cluster autoscaler puts on a node that it is about to remove (KEP-3836)."""
# RFC 1123 subdomains, as the API demands of every object's name; underscores harm nobody.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")


class Identity(NamedTuple):
    """What an object calls itself, before anything else of it is looked at."""

    version: str
    kind: str
    namespace: str
    name: str

    @property
    def subject(self) -> str:
        """As a user would look for it."""
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind or 'object'} {where}{self.name or '(without a name)'}"


def key_of(item: objects.Typed) -> Key | None:
    """The key of a typed object; None if its name is not one that Kubernetes would take."""
    return _key(KINDS[type(item)], getattr(item.metadata, "namespace", None), item.metadata.name)


def convert(item: objects.Typed) -> Change | Refused:
    """The change that this object asks for."""
    key = key_of(item)
    if key is None:
        kind = KINDS[type(item)].value
        return Refused(f"{kind} {brief(item.metadata.name)}", "metadata.name is not a name")
    notes = Notes(key)
    if isinstance(item, objects.Service):
        return Change(key, service(ServiceName(key.namespace, key.name), item, notes), notes.all())
    if isinstance(item, objects.EndpointSlice):
        return Change(
            key, endpoint_slice(SliceName(key.namespace, key.name), item, notes), notes.all()
        )
    if isinstance(item, objects.ServiceCIDR):
        return Change(key, service_cidr(item, notes), notes.all())
    if isinstance(item, objects.Pod):
        return Change(key, pod(item, notes), notes.all())
    return Change(key, node(item, notes), notes.all())


def node(item: objects.Node, notes: Notes) -> Node:
    """A Node: its zone, its addresses (internal ones first), its pod ranges."""
    spec = item.spec or objects.NodeSpec()
    addresses = (item.status.addresses if item.status is not None else None) or []
    ranges = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
    prefixes = [notes.prefix(f"spec.podCIDRs[{i}]", text) for i, text in enumerate(ranges)]
    labels = item.metadata.labels
    return Node(
        name=item.metadata.name,
        zone=intern((labels.zone if labels is not None else None) or ""),
        addresses=notes.addresses(
            "status.addresses",
            [
                address.address or ""
                for wanted in ("InternalIP", "ExternalIP")
                for address in addresses
                if address.type == wanted
            ],
        ),
        pod_cidrs=tuple(prefix for prefix in prefixes if prefix is not None),
        leaving=bool(item.metadata.deletion_timestamp)
        or any(taint.key == LEAVING_TAINT for taint in spec.taints or ()),
    )


def service_cidr(item: objects.ServiceCIDR, notes: Notes) -> ServiceCIDR:
    """A ServiceCIDR: the prefixes of it that can be read."""
    texts = (item.spec.cidrs if item.spec is not None else None) or []
    prefixes = [notes.prefix(f"spec.cidrs[{i}]", text) for i, text in enumerate(texts)]
    return ServiceCIDR(item.metadata.name, tuple(one for one in prefixes if one is not None))


def from_plain(value: object) -> Change | Refused:
    """The change that a JSON-shaped object asks for.

    An object with a field of the wrong type is refused as a whole, as the API refuses it.
    """
    identity = identify(value)
    version = (identity.version, identity.kind)
    wanted = objects.TYPES.get(version)
    if wanted is None:
        return _unknown(identity, value)
    try:
        return convert(msgspec.convert(value, wanted))
    except (msgspec.ValidationError, RecursionError) as error:
        key = _key(KINDS[wanted], identity.namespace, identity.name)
        if key is None:
            return Refused(identity.subject, "metadata.name is not a name")
        return Change(key, None, (Refused(str(key), reason(error)),))


def _unknown(identity: Identity, value: object) -> Refused:
    if not isinstance(value, Mapping):
        return Refused("object", f"{brief(value)} is no Kubernetes object")
    if not identity.kind:
        return Refused(identity.subject, "kind is missing")
    shown = brief(f"{identity.version} {identity.kind}")
    return Refused(identity.subject, f"unknown kind {shown}, left alone", wrong=False)


def identify(value: object) -> Identity:
    """What the object calls itself; empty where it does not, or not by text."""
    metadata = _get(value, "metadata")
    texts = [
        _text(_get(*pair))
        for pair in (
            (value, "apiVersion"),
            (value, "kind"),
            (metadata, "namespace"),
            (metadata, "name"),
        )
    ]
    return Identity(*texts)


def reason(error: Exception) -> str:
    """A decoding error as a reason that starts with the field."""
    text, _, path = str(error).partition(" - at ")
    return f"{path.strip('`').removeprefix('$.')}: {text}" if path else text


def _key(kind: Kind, namespace: str | None, name: str) -> Key | None:
    if kind in (Kind.NODE, Kind.SERVICE_CIDR):
        return Key(kind, "", name) if _NAME.fullmatch(name) else None
    namespace = namespace or "default"
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(namespace):
        return None
    return Key(kind, intern(namespace), name)


def _get(value: object, field: str) -> object:
    return value.get(field) if isinstance(value, Mapping) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 253 else ""
