"""A configuration as kube-proxy prints it: for `--write-config-to`, and for `/configz`."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from lb.kubeproxy.duration import Duration
from lb.kubeproxy.v1alpha1 import Configuration


def plain(found: Configuration) -> dict[str, Any]:
    """As JSON-shaped values, with apiVersion and kind."""
    shaped: dict[str, Any] = msgspec.to_builtins(_texts(found))
    return shaped


def text(found: Configuration) -> str:
    """As YAML, fields in the order of their names."""
    return yaml.safe_dump(plain(found), sort_keys=True)


def _texts(value: Any) -> Any:
    """The same, with durations as text and fields by their names in the file."""
    match value:
        case Duration():
            return str(value)
        case msgspec.Struct():
            fields = msgspec.structs.fields(value)
            return {one.encode_name: _texts(getattr(value, one.name)) for one in fields}
        case tuple():
            return [_texts(one) for one in value]
        case _:
            return value
