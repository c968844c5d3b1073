"""Flags and file joined to the configuration in force, and what is to be said about it.

With a file, flags for its fields count for nothing; but those for the node's name and for logs
win over it, and `--master` over the server in the kubeconfig. As in kube-proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from lb.errors import BadInput
from lb.kubeproxy.decode import Document, from_plain, known_fields
from lb.kubeproxy.flags import DEPRECATED, FLAGS, GONE, LOGGING, fields, flag_of
from lb.kubeproxy.remarks import remarks
from lb.kubeproxy.v1alpha1 import Configuration, defaulted, with_port
from lb.kubeproxy.validate import faults

_LISTENERS = {
    "healthz-bind-address": "healthz_bind_address",
    "metrics-bind-address": "metrics_bind_address",
}


class Effective(msgspec.Struct, frozen=True):
    """`lines`: for the log, one each."""

    configuration: Configuration
    lines: tuple[str, ...] = ()
    asked: frozenset[str] = frozenset()
    """The fields of `conntrack` that were given a value, by their names in a file."""


def effective(given: Mapping[str, Any], document: Document | None, where: str = "") -> Effective:
    """What is in force.

    `given`: flags by name without `--`, only those that were set. `document`: the configuration
    file, named `where`. Raises BadInput, with every fault there is.
    """
    said = [f"--{name}: a flag of old, without any effect" for name in GONE if name in given]
    if document is None:
        plain = fields(given, (*FLAGS, *LOGGING))
        found = _listening(defaulted(from_plain(plain)), given)
        said += [f"--{old}: use --{new}" for old, new in DEPRECATED.items() if old in given]
        _judge(found, "", given)
        return Effective(found, (*said, *remarks(found)), _asked(plain))
    try:
        plain, warnings = known_fields(document)
        found = defaulted(from_plain(_with_logging(plain, given)))
    except BadInput as error:
        raise BadInput(f"--config {where}: {error}") from error
    said += [f"--config {where}: {warning}" for warning in warnings]
    loses = sorted({flag.name for flag in FLAGS} | set(DEPRECATED))
    lost = [f"--{name}" for name in loses if name in given]
    if lost:
        said.append(f"{', '.join(lost)}: --config {where} stands in place of them")
    _judge(found, where, given)
    return Effective(found, (*said, *remarks(found)), _asked(plain))


def _asked(plain: Mapping[str, Any]) -> frozenset[str]:
    part = plain.get("conntrack") or {}
    return frozenset(name for name, value in part.items() if value is not None)


def _with_logging(plain: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    asked = fields(given, LOGGING).get("logging", {})
    return plain | {"logging": _merged(plain.get("logging") or {}, asked)} if asked else plain


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are joined, and lists, where the first word counts; else `above` wins."""
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            found[name] = _merged(old, value)
        elif isinstance(value, list) and isinstance(old, list):
            found[name] = value + old
        else:
            found[name] = value
    return found


def _listening(found: Configuration, given: Mapping[str, Any]) -> Configuration:
    """With what only flags can say: nowhere at all, or ports of old."""
    changed: dict[str, str] = {}
    for old, new in DEPRECATED.items():
        field = _LISTENERS[new]
        if old in given:
            port, address = given[old], given.get(new) or getattr(found, field).rpartition(":")[0]
            changed[field] = with_port(address, port) if port else ""
        if given.get(new) in ("", "0"):
            changed[field] = ""
    return replace(found, **changed)


def _judge(found: Configuration, where: str, given: Mapping[str, Any]) -> None:
    """Raises BadInput."""
    wrong = faults(found)
    if not wrong:
        return
    names = {fault: fault.path if where else _flag(fault.path, given) for fault in wrong}
    text = "; ".join(f"{names[one]}: {_shown(one.value)} {one.text}" for one in wrong)
    raise BadInput(f"--config {where}: {text}" if where else text)


def _flag(path: str, given: Mapping[str, Any]) -> str:
    """The flag by which a field was set, one of old if it was that."""
    flag = flag_of(path.partition("[")[0])
    olds = [old for old, new in DEPRECATED.items() if flag == f"--{new}" and old in given]
    return f"--{olds[0]}" if olds else flag


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
