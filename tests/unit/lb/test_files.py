"""What a set of files asks for: broken ones, repeated objects, differences. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.model import Change, EndpointSlice, Key, Kind, Refused, Service
from lb.sources.files import File, Joined, Objects, in_force, read

WEB = Key(Kind.SERVICE, "default", "web")


def text(name: str = "web", ip: str = "10.96.0.1", port: object = 80, kind: str = "") -> bytes:
    """One Service as a document."""
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{type: '{kind}', clusterIP: '{ip}', ports: [{{port: {port}}}]}}\n"
    ).encode()


def load(texts: dict[str, bytes], previous: dict[str, File] | None = None) -> dict[str, File]:
    """All files are there and all were read."""
    return read(texts, texts, previous or {})


def port(objects: Objects, key: Key = WEB) -> int:
    """The port of a service in force; 0: none."""
    change = objects.changes.get(key)
    return change.value.ports[0].port if change and isinstance(change.value, Service) else 0


def lines(objects: Objects) -> list[tuple[str, str]]:
    """The problems."""
    return [(one.subject, one.reason) for one in objects.problems]


def test_a_broken_file_keeps_what_it_held() -> None:
    """All its objects stay, the problem says so; a good file afterwards takes over."""
    good = load({"a.yaml": text() + text("other")})
    broken = load({"a.yaml": b"a: ["}, good)
    assert in_force(broken).changes == in_force(good).changes
    ((where, reason),) = lines(in_force(broken))
    assert where == "a.yaml:1"
    assert reason.endswith("; its last good content stays in force")
    again = in_force(load({"a.yaml": text(port=81)}, broken))
    assert (port(again), lines(again), len(again.changes)) == (81, [], 1)


def test_a_file_that_was_never_good_holds_nothing() -> None:
    """The problem then promises nothing."""
    objects = in_force(load({"a.yaml": b"a: [", "b.yaml": text()}))
    assert port(objects) == 80
    assert lines(objects)[0][0] == "a.yaml:1"
    assert "last good" not in lines(objects)[0][1]


def test_an_emptied_file_keeps_what_it_held() -> None:
    """Whoever rewrites a file empties it first; that must not cost a service its traffic."""
    objects = in_force(load({"a.yaml": b" \n"}, load({"a.yaml": text()})))
    assert port(objects) == 80
    assert "remove the file" in lines(objects)[0][1]


def test_a_file_that_cannot_be_read_keeps_what_it_held() -> None:
    """The same for an error of reading as for one of parsing."""
    refused = Refused("a.yaml", "cannot be read: Permission denied")
    objects = in_force(read(["a.yaml"], {"a.yaml": refused}, load({"a.yaml": text()})))
    assert port(objects) == 80
    assert lines(objects)[0][1].startswith("cannot be read: Permission denied; its last good")


def test_files_that_were_not_read_again_stay_as_they_are() -> None:
    """Only changed files cost anything; files that are gone take their objects with them."""
    files = load({"a.yaml": text("a"), "b.yaml": text("b")})
    after = read(["b.yaml", "c.yaml"], {"c.yaml": text("c")}, files)
    assert after["b.yaml"] is files["b.yaml"]
    assert [key.name for key in in_force(after).changes] == ["b", "c"]


def test_a_broken_object_keeps_its_last_good_form() -> None:
    """In a file that parses, by itself; the reason stands with the object, the others go on."""
    good = load({"a.yaml": text() + text("other")})
    for bad in (text(port="eighty"), text(ip="10.96.0")):
        objects = in_force(load({"a.yaml": bad + text("other", port=81)}, good))
        assert port(objects) == 80
        assert port(objects, WEB._replace(name="other")) == 81
        reasons = [one.reason for one in objects.changes[WEB].refused]
        assert reasons[-1] == "its last good form stays in force"
        assert reasons[0].startswith("spec.")


def test_a_broken_object_without_a_past_is_refused() -> None:
    """There is nothing to keep; the reason is told all the same."""
    objects = in_force(load({"a.yaml": text(port="eighty")}))
    assert objects.changes[WEB].value is None
    assert len(objects.changes[WEB].refused) == 1


def test_a_service_that_is_no_longer_to_be_proxied_goes() -> None:
    """Becoming headless or ExternalName is a wish, not a fault: nothing of the past is kept."""
    good = load({"a.yaml": text()})
    for bad in (text(ip="None"), text(ip=""), text(kind="ExternalName")):
        assert in_force(load({"a.yaml": bad}, good)).changes[WEB].value is None


def test_of_two_with_one_name_the_first_counts() -> None:
    """By the order of files; the other is named, and takes over when the first is gone."""
    texts = {"b.yaml": text(port=81), "a.yaml": text(port=80)}
    files = load(texts)
    assert port(in_force(files)) == 80
    assert lines(in_force(files)) == [
        ("b.yaml:2", "Service default/web is named twice; the one at a.yaml:2 counts")
    ]
    after = in_force(read(["b.yaml"], {}, files))
    assert (port(after), lines(after)) == (81, [])


def test_twice_in_one_file() -> None:
    """The first document counts."""
    objects = in_force(load({"a.yaml": text(port=80) + text(port=81)}))
    assert port(objects) == 80
    assert [subject for subject, _ in lines(objects)] == ["a.yaml:7"]


def test_the_last_good_form_is_that_of_the_one_that_counted() -> None:
    """Of two with one name the second's past is not mistaken for the first's."""
    good = load({"a.yaml": text(port=80) + text(port=81)})
    objects = in_force(load({"a.yaml": text(port="eighty")}, good))
    assert port(objects) == 80


def test_unnamed_objects_and_unknown_kinds_are_problems_of_their_place() -> None:
    """They have no key to be shown under."""
    data = b"kind: Deployment\napiVersion: apps/v1\nmetadata: {name: x}\n---\n5\n"
    problems = in_force(load({"a.yaml": data})).problems
    assert [(one.subject, one.wrong) for one in problems] == [
        ("a.yaml:1", False),
        ("a.yaml:5", True),
    ]


def test_unnamed_ports_of_slices_are_as_the_api_server_would_have_them() -> None:
    """discovery.k8s.io/v1 defaults the name to empty, so a manifest may leave it out."""
    data = b"""{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 80}, {"name": null, "port": 81}]}"""
    change = in_force(load({"a.json": data.replace(b" 5,", b"")})).changes[
        WEB._replace(kind=Kind.SLICE)
    ]
    assert isinstance(change.value, EndpointSlice)
    assert [(one.name, one.port) for one in change.value.ports] == [("", 80)]
    assert [one.reason for one in change.refused] == ["ports[1].name: '' is used twice for TCP"]


def test_removals_come_first() -> None:
    """So that an address which moves from one service to another is free when it is claimed."""
    joined = Joined()
    joined.become(load({"a.yaml": text("old")}))
    found = joined.become(load({"a.yaml": text("new")}))
    assert [(change.key.name, change.value is None) for change in found] == [
        ("old", True),
        ("new", False),
    ]


def test_an_unchanged_file_takes_over_what_a_changed_one_gives_up() -> None:
    """The successor was read long ago; the one that counted names the object no longer."""
    joined = Joined()
    files = load({"a.yaml": text(port=80) + text("other"), "b.yaml": text(port=81)})
    joined.become(files)
    after = read(files, {"a.yaml": text("other")}, files)
    (found,) = joined.become(after)
    assert found == in_force(load({"b.yaml": text(port=81)})).changes[WEB]
    assert joined.problems == ()


FILES = st.dictionaries(
    st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]),
    st.lists(st.builds(text, st.sampled_from(["web", "db"]), port=st.integers(1, 3)), max_size=3)
    .map(b"".join),
    max_size=3,
)  # fmt: skip


@given(st.lists(FILES, max_size=6))
def test_changes_lead_from_any_files_to_any_others(steps: list[dict[str, bytes]]) -> None:
    """Step by step it comes to what the last files say by themselves, and says nothing twice."""
    joined, state = Joined(), dict[Key, Change]()
    files: dict[str, File] = {}
    texts: dict[str, bytes] = {}
    for step in steps:
        changed = {name: data for name, data in step.items() if texts.get(name) != data}
        files, texts = read(step, changed, files), step
        for change in joined.become(files):
            assert state.get(change.key) != change
            if change.value is None:
                del state[change.key]
            else:
                state[change.key] = change
        counts: dict[Key, Change] = {}
        for file in files.values():
            for entry in file.entries:
                counts.setdefault(entry.change.key, entry.change)
        assert state == joined.changes == counts
        named = sum(len(file.entries) + len(file.problems) for file in files.values())
        assert len(joined.problems) == named - len(counts)
        assert joined.problems == in_force(files).problems
        assert joined.become(dict(files)) == []


@given(st.lists(st.dictionaries(
    st.sampled_from(["a.yaml", "b.yaml"]),
    st.sampled_from([text(), text(port=81), text("other"), text(port="x"), b"a: [", b"", b"5"]),
), max_size=5))  # fmt: skip
def test_what_is_in_force_is_what_some_good_file_said(steps: list[dict[str, bytes]]) -> None:
    """Whatever the sequence of files, nothing half read ever counts, and no two count twice."""
    files: dict[str, File] = {}
    for texts in steps:
        files = load(texts, files)
        objects = in_force(files)
        assert set(files) == set(texts)
        assert {port(objects, key) for key in objects.changes} <= {0, 80, 81}
        if texts and all(data == text() for data in texts.values()):
            assert port(objects) == 80
