"""Manifest files to plain values: hostile and broken ones get one line each."""

from __future__ import annotations

import sys
import time

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lb.model import Refused
from lb.sources import documents
from lb.sources.documents import Document, parse


def chained(first: str, link: str) -> str:
    """Ten levels of aliases, each ten times the one before: ten thousand million values."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, 10):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {link.format(aliases)}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "data", "line", "reason"),
    [
        ("a.yaml", b"kind: [a\nb: 2", 2, "did not find expected ',' or ']'"),
        ("a.yaml", b"a: 1\nb: [\n", 2, "did not find expected node content"),
        ("a.yaml", b"a: 1\n\tb: 2", 2, "found a tab character"),
        ("a.yaml", b"a: 1\nb: \xff", 2, "is not UTF-8 text"),
        ("a.yaml", "a: 1".encode("utf-16"), 1, "is not UTF-8 text"),
        ("a.yaml", b"a: \x00", 1, "control characters"),
        ("a.yaml", b"a: 1\nb: !!python/object/apply:os.system [id]", 2, "constructor for the tag"),
        ("a.yaml", b"!!python/name:os.system", 1, "constructor for the tag"),
        ("a.yaml", b"a: !mine b", 1, "constructor for the tag"),
        ("a.yaml", b"? [a]\n: b", 1, "unhashable key"),
        ("a.yaml", b"a: !!timestamp 2001-13-45", 1, "month must be in 1..12"),
        ("a.yaml", b"a: " + b"9" * 5000, 1, "digits"),
        ("a.yaml", b"a: *b", 1, "alias 'b' has nothing to stand for"),
        ("a.yaml", b"a: &a [*a]", 1, "alias 'a' has nothing to stand for"),
        ("a.yaml", b"a: &a 1\n---\nb: *a", 3, "alias 'a' has nothing to stand for"),
        ("a.yaml", b"\n" + b"[" * 100_000, 2, "nested more than 200 levels deep"),
        ("a.yaml", b"- " * 100_000, 1, "nested more than 200 levels deep"),
        ("a.yaml", chained("[x]", "[{}]").encode(), 7, "aliases stand for more than"),
        ("a.yaml", chained("{k: v}", "{{<<: [{}]}}").encode(), 7, "aliases stand for more than"),
        ("a.json", b'{"a":\n\n1,}', 3, "trailing comma"),
        ("a.json", b"", 1, "truncated"),
        ("a.json", b'{"a": 1}{"b": 2}', 1, "trailing characters"),
        ("a.json", b"[" * 1_000_000, 1, "recursion"),
        ("a.json", b'{\n"a": "\xff"}', 2, "is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_one_line(name: str, data: bytes, line: int, reason: str) -> None:
    """It names the file, the line and the reason, quickly, and nothing of the file is executed."""
    started = time.process_time()
    found = parse(name, data)
    assert isinstance(found, Refused)
    assert found.subject == f"{name}:{line}"
    assert reason in found.reason
    assert "\n" not in found.reason
    assert time.process_time() - started < 2.0


def test_documents_know_their_lines() -> None:
    """Many documents in one file, empty ones left out."""
    text = b"---\n---\na: 1\n---\n# nothing\n---\n\nb: 2\n"
    assert parse("x.yml", text) == [Document("x.yml:3", {"a": 1}), Document("x.yml:8", {"b": 2})]


def test_text_that_looks_like_a_time_stays_text() -> None:
    """Unquoted times and all-digit IPv6 addresses are text, as kubectl reads them."""
    text = b"t: 2020-01-01T00:00:00Z\nd: 2020-01-01\nip: 2001:10:20:30:40:50:1:2\nn: 10\nh: 0x1f"
    assert parse("x.yaml", text) == [
        Document(
            "x.yaml:1",
            {
                "t": "2020-01-01T00:00:00Z",
                "d": "2020-01-01",
                "ip": "2001:10:20:30:40:50:1:2",
                "n": 10,
                "h": 31,
            },
        )
    ]


def test_honest_aliases_and_merges_work() -> None:
    """Anchors save typing in real manifests."""
    text = b"a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}"
    found = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    assert parse("x.yaml", text) == [Document("x.yaml:1", found)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"apiVersion": "v1", "kind": "List", "items": [{"a": 1}, 2]}, [{"a": 1}, 2]),
        ({"apiVersion": "v1", "kind": "List", "items": None}, []),
        (
            {"apiVersion": "v1", "kind": "ServiceList", "items": [{"a": 1}]},
            [{"apiVersion": "v1", "kind": "Service", "a": 1}],
        ),
        (
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [{}]},
            [{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}],
        ),
        (
            {"apiVersion": "v1", "kind": "NodeList", "items": [{"kind": "Pod"}]},
            [{"apiVersion": "v1", "kind": "Pod"}],
        ),
        ({"kind": ["List"], "items": [1]}, [{"kind": ["List"], "items": [1]}]),
        (
            {"apiVersion": "v1", "kind": "List", "items": 5},
            [{"apiVersion": "v1", "kind": "List", "items": 5}],
        ),
    ],
)
def test_lists_are_opened_up(value: object, expected: list[object]) -> None:
    """Items of a typed list need not say what they are; a list that is none stays what it is."""
    found = parse("x.json", msgspec.json.encode(value))
    assert isinstance(found, list)
    assert [document.value for document in found] == expected


def test_items_know_their_place() -> None:
    """An item is named by its document and its index."""
    found = parse("x.yaml", b"---\napiVersion: v1\nkind: List\nitems: [1, 2]")
    assert found == [Document("x.yaml:2 items[0]", 1), Document("x.yaml:2 items[1]", 2)]


def test_the_bound_of_nesting_is_far_from_both_ends() -> None:
    """Real objects are allowed; Python's own limit is not met before ours."""
    assert 50 < documents.DEEPEST < sys.getrecursionlimit() // 2
    deep = "[" * documents.DEEPEST + "]" * documents.DEEPEST
    assert isinstance(parse("x.yaml", deep.encode()), list)
    assert isinstance(parse("x.yaml", f"[{deep}]".encode()), Refused)


@given(st.binary(max_size=200), st.sampled_from(["x.yaml", "x.json"]))
def test_any_bytes_are_answered(data: bytes, name: str) -> None:
    """No file whatever raises."""
    assert isinstance(parse(name, data), list | Refused)


@given(st.text(alphabet="[]{}:-,&*!<? \n'\"ab1|>%@#", max_size=60))
def test_any_yaml_text_is_answered(text: str) -> None:
    """Nor does any mixture of YAML's own signs."""
    assert isinstance(parse("x.yaml", text.encode()), list | Refused)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
).filter(lambda value: value is not None)


@given(VALUES)
def test_yaml_and_json_agree(value: object) -> None:
    """What is written as YAML and as JSON reads as the same value."""
    text = yaml.safe_dump(value).encode()
    assert parse("x.yaml", text) == [Document("x.yaml:1", value)]
