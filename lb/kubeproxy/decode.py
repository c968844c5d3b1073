"""A configuration file's text to a `Configuration`: strictly first, then leniently.

What strict decoding finds (fields that nobody knows, fields that stand twice) becomes warnings,
so that files of older versions start; a value of the wrong type is an error either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast, get_origin

import msgspec
import yaml

from lb.errors import BadInput
from lb.kubeproxy import duration
from lb.kubeproxy.duration import Duration
from lb.kubeproxy.v1alpha1 import API_VERSION, KIND, Configuration, Part


class Document(NamedTuple):
    """The first document of a file as plain values, and the fields that stand in it twice."""

    value: object
    twice: tuple[str, ...]

    @property
    def is_kube_proxy(self) -> bool:
        """Does it call itself an API object, as no file of Tidegate's own flags does?"""
        return isinstance(self.value, dict) and bool({"apiVersion", "kind"} & self.value.keys())


def read(data: bytes) -> Document:
    """YAML or JSON. Raises BadInput."""
    try:
        loader = yaml.CSafeLoader(data)
        try:
            node = loader.get_node() if loader.check_node() else None
            twice = tuple(_twice(node, ""))
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"line {line}: {error.problem or 'does not parse'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"does not parse: {' '.join(str(error).split())}") from error
    return Document(value, twice)


def known_fields(document: Document) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields that are known, and what a strict reading would refuse. Raises BadInput."""
    plain = document.value
    if not isinstance(plain, dict):
        raise BadInput("is no configuration: a mapping of fields was expected")
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if plain.get(name) != wanted:
            raise BadInput(f"{name} is {plain.get(name)!r}: only {wanted} is understood")
    known, unknown = _split(plain, Configuration, "")
    warnings = [f"{path}: no such field" for path in unknown]
    warnings += [f"{path}: stands twice, the last one counts" for path in document.twice]
    return known, tuple(warnings)


def from_plain(plain: object) -> Configuration:
    """The configuration of plain values that hold known fields only. Raises BadInput."""
    try:
        return msgspec.convert(_without_nulls(plain), Configuration, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$").removeprefix(".")
        raise BadInput(f"{where}: {text}" if where else text) from error


def _decoded(wanted: type, value: Any) -> Any:
    if wanted is Duration and isinstance(value, str):
        try:
            return duration.parse(value)
        except BadInput as error:
            raise ValueError(str(error)) from error
    raise ValueError(f"{value!r} is not a duration: write 30s, 1m30s or 2h")


def _split(
    plain: dict[Any, Any], wanted: type[Part], path: str
) -> tuple[dict[str, Any], list[str]]:
    """The fields that the struct knows, and the paths of all others."""
    known: dict[str, Any] = {}
    unknown: list[str] = []
    fields = {one.encode_name: one.type for one in msgspec.structs.fields(wanted)}
    for name, value in plain.items():
        inner = fields.get(name)
        if inner is None:
            unknown.append(f"{path}{name}")
        elif _is_part(inner) and isinstance(value, dict):
            known[name], more = _split(value, inner, f"{path}{name}.")
            unknown += more
        elif get_origin(inner) is tuple and isinstance(value, list) and _is_part(_item(inner)):
            known[name], more = _split_all(value, _item(inner), f"{path}{name}")
            unknown += more
        else:
            known[name] = value
    return known, unknown


def _split_all(values: list[Any], wanted: type[Part], path: str) -> tuple[object, list[str]]:
    known: list[object] = []
    unknown: list[str] = []
    for i, value in enumerate(values):
        one: tuple[object, list[str]] = (value, [])
        if isinstance(value, dict):
            one = _split(value, wanted, f"{path}[{i}].")
        known.append(one[0])
        unknown += one[1]
    return known, unknown


def _is_part(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, Part)


def _item(wanted: Any) -> type[Part]:
    return cast("type[Part]", wanted.__args__[0])


def _without_nulls(value: object) -> object:
    """A field that is null is one that is absent, as in Go's own structs."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value


def _twice(node: yaml.Node | None, path: str) -> Iterator[str]:
    match node:
        case yaml.MappingNode():
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    yield f"{path}{name}"
                seen.add(name)
                yield from _twice(value, f"{path}{name}.")
        case yaml.SequenceNode():
            for i, value in enumerate(node.value):
                yield from _twice(value, f"{path.removesuffix('.')}[{i}].")
