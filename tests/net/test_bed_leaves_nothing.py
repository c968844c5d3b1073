"""However a cluster ends, nothing of it stays; and it never touches a living neighbour."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bed import Cluster, curl, sweep, until
from tests.bed.cgroup import mount_point
from tests.bed.process import REPOSITORY


def remains(name: str) -> list[str]:
    """Namespaces, cgroups, mounts, files and processes that carry a cluster's name."""
    mount = mount_point()
    assert mount is not None
    folders = [*Path("/run").glob(f"*{name}*"), *Path("/run/netns").glob(f"{name}-*")]
    groups = list(mount.glob(f"**/*{name}*"))
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    return [*map(str, folders + groups), *mounts, *processes(name)]


def processes(name: str) -> list[str]:
    """Command lines of living processes in a cluster's cgroups, or that name it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            group = (folder / "cgroup").read_text()
        except OSError:
            continue
        if command and (name in command or name in group):
            found.append(f"{folder.name} {command}")
    return found


OWNER = """
import signal
from tests.bed import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored
cluster = Cluster(nodes=2)
{block}:
    pod = cluster.nodes[1].pod("web-0")
    pod.nginx()
    print(cluster.name, flush=True)
    {then}
"""


@contextmanager
def owner(
    then: str = "signal.pause()", block: str = "with cluster"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that builds a cluster of its own and then does something; its cluster's name."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then, block=block)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_ordinary_end() -> None:
    """At the end of the block, all is gone: namespaces, cgroups, mounts, files, processes."""
    with Cluster(nodes=2) as cluster:
        pod = cluster.nodes[0].pod("web-0")
        server = pod.nginx()
        there = remains(cluster.name)
        assert any(f"{server.pid} " in line for line in there)
        assert any("bpf" in line for line in there)
    assert remains(cluster.name) == []
    assert not server.running


def test_exception_in_the_block() -> None:
    """An exception passes through, and takes nothing less down."""
    cluster = Cluster()

    def fail() -> None:
        with cluster:
            cluster.nodes[0].pod("web-0").nginx()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert remains(cluster.name) == []


def test_failure_while_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that fails half-way takes down the half that stands."""
    monkeypatch.setattr("tests.bed.network.wire_ports", lambda _: "exit 1")
    cluster = Cluster(nodes=2)
    with pytest.raises(Exception, match="exit status 1"):
        cluster.__enter__()
    assert remains(cluster.name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal(number: signal.Signals) -> None:
    """A signal takes the cluster down, and then the process dies of that very signal."""
    with owner() as (process, name):
        assert remains(name)
        process.send_signal(number)
        assert process.wait(10) == -number
        assert remains(name) == []


def test_end_of_the_interpreter() -> None:
    """A cluster that was entered and never left goes when the interpreter ends."""
    with owner("pass", block="if cluster.__enter__()") as (process, name):
        assert process.wait(10) == 0
        assert remains(name) == []


def test_dead_owner() -> None:
    """What a killed owner left is swept; a living owner's cluster beside it goes on."""
    with owner() as (living, neighbour), owner() as (process, name):
        sweep()
        assert any("nginx" in line for line in processes(name))
        process.kill()
        process.wait(10)
        sweep()
        # Another run's sweep may have been first, and still be at it.
        until(lambda: not remains(name), "end of the sweep", timeout=5)
        assert len(processes(neighbour)) == 1
        assert living.poll() is None


def test_kept_cluster() -> None:
    """A kept cluster outlives its owner and every sweep, until it is taken down by name."""
    with owner("cluster.keep()") as (process, name):
        assert process.wait(10) == 0
        assert name not in sweep()
        assert any("nginx" in line for line in processes(name))
        argv = [sys.executable, "-m", "tests.bed"]
        listed = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        assert f"{name}\tkept" in listed.stdout.splitlines()
        subprocess.run([*argv, name], cwd=REPOSITORY, check=True)
        assert remains(name) == []


def test_living_owner_keeps_its_cluster() -> None:
    """Nobody else can take down a cluster in use."""
    with Cluster() as cluster:
        argv = [sys.executable, "-m", "tests.bed", cluster.name]
        refused = subprocess.run(argv, cwd=REPOSITORY, check=False, capture_output=True, text=True)
        assert (refused.returncode, cluster.name in refused.stderr) == (1, True)
        assert remains(cluster.name)


def test_side_by_side() -> None:
    """Two clusters with the same addresses do not hear each other."""
    with Cluster() as one, Cluster() as other:
        for cluster, name in ((one, "red"), (other, "blue")):
            cluster.nodes[0].pod(name).nginx()
        for cluster, name in ((one, "red"), (other, "blue")):
            answer = curl(cluster.client, f"http://{cluster.nodes[0].pods[0].ipv4}:8080/")
            assert answer.json["pod"] == name
    assert remains(one.name) == remains(other.name) == []


def test_name_is_taken_once() -> None:
    """A second cluster of the same name is refused, and harms the first in nothing."""
    with Cluster(name="a") as first:
        assert first.name == f"tg{os.getpid()}-a"
        with pytest.raises(Exception, match="is there already"):
            Cluster(name="a").__enter__()
        assert first.client.run("true").returncode == 0


def test_quick(record_property: Callable[[str, object], None]) -> None:
    """Two nodes with six pods, up and down again, within three seconds."""
    started = time.monotonic()
    with Cluster(nodes=2) as cluster:
        for number in range(6):
            cluster.nodes[number % 2].pod(f"web-{number}")
        built = time.monotonic()
    ended = time.monotonic()
    record_property("seconds_up", built - started)
    record_property("seconds_down", ended - built)
    assert ended - started < 3
