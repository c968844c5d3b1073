"""A directory of manifests as a source: real files, real inotify."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from lb.model import Key, Kind, Service
from lb.sources import manifests
from lb.sources.manifests import ManifestSource, read_directory
from tests.bed.inbox import RecordingInbox, running

SERVICE = """apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: {ip}
  ports: [{{port: {port}}}]
"""


def text(name: str = "web", ip: str = "10.96.0.1", port: int = 80) -> str:
    """One service with one port."""
    return SERVICE.format(name=name, ip=ip, port=port)


def put(path: Path, content: str) -> None:
    """As a careful writer does it: beside, then renamed."""
    beside = path.with_suffix(".tmp")
    beside.write_text(content)
    beside.rename(path)


def port_of(inbox: RecordingInbox, name: str = "web") -> int:
    """The port of a service as last delivered; 0: not there."""
    change = inbox.objects.get(Key(Kind.SERVICE, "default", name))
    return change.value.ports[0].port if change and isinstance(change.value, Service) else 0


def test_the_first_state_is_delivered_before_synced(tmp_path: Path) -> None:
    """All files present at the start are in before `synced`, the report says all is well."""
    (tmp_path / "a.yaml").write_text(text("a") + "---\n" + text("b", "fd00::1"))
    (tmp_path / "c.json").write_text('{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}')
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert {"Service default/a", "Service default/b", "Node n"} == inbox.names
        assert (inbox.error, inbox.problems) == ("", [])


def test_an_empty_directory_is_a_state(tmp_path: Path) -> None:
    """A directory without files is synced: it asks for nothing."""
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert set() == inbox.names


@pytest.mark.parametrize("write", [put, Path.write_text], ids=["renamed", "in place"])
def test_changes_act_at_once(tmp_path: Path, write: object) -> None:
    """A file that is added, changed and removed is followed, well before the periodic look."""
    assert callable(write)
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        started = time.monotonic()
        write(tmp_path / "web.yaml", text(port=80))
        inbox.wait(lambda: port_of(inbox) == 80)
        write(tmp_path / "web.yaml", text(port=81))
        inbox.wait(lambda: port_of(inbox) == 81)
        (tmp_path / "web.yaml").unlink()
        inbox.wait(lambda: not inbox.names)
        assert time.monotonic() - started < manifests.RESCAN_MS / 1000


def test_a_rewrite_of_the_same_delivers_nothing(tmp_path: Path) -> None:
    """Only content counts: writing a file again, or with other comments, is no change."""
    (tmp_path / "web.yaml").write_text(text())
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        (tmp_path / "web.yaml").write_text("# a comment\n" + text())
        (tmp_path / "last.yaml").write_text(text("last", "10.96.0.2"))
        inbox.wait(lambda: "Service default/last" in inbox.names)
        assert [change.key.name for change in inbox.changes] == ["web", "last"]


def test_symlinks_swapped_as_of_a_config_map(tmp_path: Path) -> None:
    """`..data` pointing elsewhere by one rename is seen, though no file itself changed."""
    for version, port in (("..1", 80), ("..2", 81)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "web.yaml").write_text(text(port=port))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: port_of(inbox) == 80)
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        inbox.wait(lambda: port_of(inbox) == 81)


def test_the_directory_may_come_later_go_and_come_again(tmp_path: Path) -> None:
    """A missing directory is an error line and a wait; what it held stays until it is back."""
    directory = tmp_path / "later"
    with running(ManifestSource(directory)) as inbox:
        inbox.wait(lambda: "no such directory" in inbox.error)
        assert not inbox.is_synced
        directory.mkdir()
        put(directory / "web.yaml", text())
        inbox.wait(lambda: inbox.is_synced and port_of(inbox) == 80 and inbox.error == "")
        directory.rename(tmp_path / "away")
        inbox.wait(lambda: "what it held stays in force" in inbox.error)
        assert port_of(inbox) == 80
        put(tmp_path / "away" / "web.yaml", text(port=81))
        (tmp_path / "away").rename(directory)
        inbox.wait(lambda: port_of(inbox) == 81 and inbox.error == "")


def test_a_file_counts_once_its_writer_closes_it(tmp_path: Path) -> None:
    """Half a file asks for nothing, even where that half would be good by itself."""
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        with (tmp_path / "web.yaml").open("w") as file:
            file.write(text(port=80))
            file.flush()
            put(tmp_path / "other.yaml", text(name="other", port=82))
            inbox.wait(lambda: port_of(inbox, "other") == 82)
            assert port_of(inbox) == 0
            file.write("---\n" + text(name="second", port=81))
        inbox.wait(lambda: port_of(inbox) == 80 and port_of(inbox, "second") == 81)


def test_a_directory_that_is_replaced_is_followed(tmp_path: Path) -> None:
    """Another directory under the same name is the one that counts."""
    directory, other = tmp_path / "now", tmp_path / "next"
    for path, port in ((directory, 80), (other, 81)):
        path.mkdir()
        (path / "web.yaml").write_text(text(port=port))
    with running(ManifestSource(directory)) as inbox:
        inbox.wait(lambda: port_of(inbox) == 80)
        directory.rename(tmp_path / "gone")
        other.rename(directory)
        inbox.wait(lambda: port_of(inbox) == 81)
        put(directory / "web.yaml", text(port=82))
        inbox.wait(lambda: port_of(inbox) == 82)


def test_a_broken_file_keeps_its_last_good_content(tmp_path: Path) -> None:
    """It is named with line and reason, harms no other file, and its repair clears the problem."""
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b", "10.96.0.2"))
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        put(tmp_path / "a.yaml", "kind: [\n")
        inbox.wait(lambda: bool(inbox.problems))
        assert inbox.problems[0].startswith("a.yaml:1: ")
        assert "last good content stays" in inbox.problems[0]
        put(tmp_path / "b.yaml", text("b", "10.96.0.2", 81))
        inbox.wait(lambda: port_of(inbox, "b") == 81)
        assert port_of(inbox, "a") == 80
        put(tmp_path / "a.yaml", text("a", port=82))
        inbox.wait(lambda: not inbox.problems and port_of(inbox, "a") == 82)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large, a link that leads in a circle, no text: one line each, the others go on."""
    monkeypatch.setattr(manifests, "LARGEST", 1000)
    (tmp_path / "good.yaml").write_text(text())
    (tmp_path / "huge.yaml").write_text("#" * 1001)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "utf8.yaml").write_bytes(b"a: 1\nb: \xff")
    changes, problems = read_directory(tmp_path)
    assert [change.key.name for change in changes] == ["web"]
    assert [(one.subject, one.reason) for one in problems] == [
        ("huge.yaml", "is larger than 1000 bytes"),
        ("loop.yaml", "cannot be read: Too many levels of symbolic links"),
        ("utf8.yaml:2", "is not UTF-8 text"),
    ]


def test_only_manifest_files_count(tmp_path: Path) -> None:
    """Hidden files, other endings, sub-folders, pipes and dangling links are left alone."""
    (tmp_path / ".hidden.yaml").write_text(text("a"))
    (tmp_path / "README.md").write_text(text("b"))
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert read_directory(tmp_path) == ([], ())


def test_without_inotify_changes_are_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no watch left, the report says so and the periodic look does it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "no watches left")

    monkeypatch.setattr(manifests, "INotify", refuse)
    monkeypatch.setattr(manifests, "RESCAN_MS", 20)
    with running(ManifestSource(tmp_path)) as inbox:
        inbox.wait(lambda: inbox.is_synced)
        assert inbox.error.startswith("no inotify (no watches left)")
        put(tmp_path / "web.yaml", text())
        inbox.wait(lambda: port_of(inbox) == 80)
