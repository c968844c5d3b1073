"""`tidegate monitor` against traffic that is really sent: what is told, and about whom."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bed.agent import command
from tests.bed.manifests import pod
from tests.bed.process import Process, until
from tests.net.outside import FAMILY, FAST, PROTOCOL, TWO_NODES, Outside, ask
from tests.net.test_commands import refused
from tests.net.world import World

pytestmark = TWO_NODES
Rows = list[dict[str, Any]]


@contextmanager
def watching(world: World, *flags: str, form: str = "json") -> Iterator[Process]:
    """A monitor on n1 that listens, until the end of the block."""
    agent = world.agent
    where = ("--bpffs", str(agent.bpffs), "--api-socket", str(agent.api_socket))
    process = world.node.spawn(
        *command(), "monitor", "-o", form, *flags, *where,
        ready=lambda process: "listening" in process.output,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.end()


def rows(process: Process, count: int) -> Rows:
    """What it told, once it told so much."""

    def lines() -> list[str]:
        return [one for one in process.output.splitlines() if one.startswith("{")]

    until(lambda: len(lines()) >= count, f"{count} events", timeout=5, process=process)
    return [json.loads(one) for one in lines()]


@FAMILY
@PROTOCOL
def test_a_flow_is_told_with_names(outside: Outside, family: str, protocol: str) -> None:
    """A connection from outside: both ends, service, pod, node, and how it is forwarded."""
    world, name = outside.world, f"told-{family}-{protocol.lower()}"
    place = outside.expose(name, [world.far], protocol=protocol)["balancer"]
    with watching(world, "--service", f"default/{name}") as process:
        outside.ask(protocol, place, family)
        (row,) = rows(process, 1)
    assert row["client"].strip("[").startswith(getattr(outside.client, family))
    assert (row["event"], row["protocol"]) == ("flow", protocol)
    assert row["hook"] in {"tc", "xdp"}
    assert (row["service"], row["backend_pod"], row["backend_node"]) == (
        f"default/{name}", "default/web-1", "n2",
    )  # fmt: skip
    assert getattr(world.far, family) in row["backend"]
    assert row["mode"] == "snat"
    assert 49152 <= row["port"] < 65536


@FAMILY
@PROTOCOL
def test_a_connect_is_told_with_names(outside: Outside, family: str, protocol: str) -> None:
    """A pod's socket: which pod it is, though it had no address yet."""
    world, name = outside.world, f"met-{family}-{protocol.lower()}"
    places = outside.expose(name, [world.near], protocol=protocol)
    outside.expose("app", [world.app])
    with watching(world, "--pod", "default/app-0") as process:
        ask(world.app, protocol, getattr(places["cluster"].at, family), places["cluster"].port)
        (row,) = rows(process, 1)
    assert (row["event"], row["hook"]) == ("connect", "socket")
    assert (row["client_pod"], row["backend_pod"]) == ("default/app-0", "default/web-0")
    assert (row["service"], row["backend_node"]) == (f"default/{name}", "n1")


def test_a_pod_without_a_service_has_its_name(outside: Outside) -> None:
    """By its manifest alone, for `monitor` and `explain --from-pod`, until it has ended."""
    world, agent = outside.world, outside.world.agent
    plain, place = world.node.pod("plain-0"), outside.expose("seen", [world.near])["cluster"]

    def explain(family: str, *, check: bool) -> subprocess.CompletedProcess[str]:
        source, to = getattr(plain, family), getattr(place.at, family)
        ends = [f"[{source}]:40000", f"[{to}]:{place.port}"]
        argv = ("explain", "tcp", *ends, "--from-pod", "default/plain-0", "-o", "json")
        return agent.tidegate(*argv, check=check, timeout=60)

    def written(**fields: Any) -> None:
        world.write("plain", pod("plain-0", node="n1", addresses=plain.addresses, **fields))

    assert "no pod's address" in refused(explain("ipv4", check=False))
    written()
    for family in ("ipv4", "ipv6"):
        found = json.loads(explain(family, check=True).stdout)
        assert (found["verdict"], found["service"]) == ("local", "default/seen")
        with watching(world, "--pod", "default/plain-0") as process:
            ask(plain, "TCP", getattr(place.at, family), place.port)
            (row,) = rows(process, 1)
        assert (row["client_pod"], row["backend_pod"]) == ("default/plain-0", "default/web-0")
    written(phase="Succeeded")
    assert "no pod's address" in refused(explain("ipv6", check=False))
    world.remove("plain")


@FAMILY
def test_every_drop_is_told(outside: Outside, family: str) -> None:
    """From outside and from sockets, each with its reason; nothing else passes the filter."""
    world, name = outside.world, f"silent-{family}"
    places = outside.expose(name, [world.far], external_policy="Local")
    nobody = outside.expose(f"nobody-{family}", [])
    with watching(world, "--reason", "no_local_backend") as process:
        outside.ask("TCP", places["balancer"], family, *FAST)
        (row, *_) = rows(process, 1)
        assert (row["event"], row["service"]) == ("drop", f"default/{name}")
        assert row["reason"] == "no_local_backend"
    with watching(world, "--reason", "no_backend") as process:
        at = nobody["cluster"]
        assert ask(world.app, "TCP", getattr(at.at, family), at.port).server == "ECONNREFUSED"
        (row,) = rows(process, 1)
    assert (row["hook"], row["service"]) == ("socket", f"default/nobody-{family}")


def test_forms(outside: Outside) -> None:
    """In text a line names all; compact is short; an address narrows; --count ends it."""
    world = outside.world
    place = outside.expose("forms", [world.near])["external"]
    address = outside.client.ipv4
    with watching(world, "--address", address, "--count", "1", form="text") as text:
        outside.ask("TCP", place, "ipv4")
        until(lambda: not text.running, "the end", timeout=5)
    assert "default/forms" in text.output
    assert "(default/web-0) on n1  local  [" in text.output
    with watching(world, "--count", "1", form="compact") as text:
        outside.ask("TCP", place, "ipv4")
        until(lambda: not text.running, "the end", timeout=5)
    assert f"TCP {address}:" in text.output
    assert text.output.rstrip().endswith(":8080 local")


def test_without_an_agent(outside: Outside) -> None:
    """The pins are enough; pods alone have no names then. Only one may listen at a time."""
    world = outside.world
    place = outside.expose("alone", [world.near])["balancer"]
    world.agent.kill()
    try:
        with watching(world) as process:
            assert "somebody else" in refused(world.agent.tidegate("monitor", check=False))
            outside.ask("TCP", place, "ipv4")
            (row, *_) = rows(process, 1)
        assert (row["service"], row["backend_pod"]) == ("default/alone", "")
        assert row["backend_node"] == "n1"
    finally:
        world.agent.start()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--service", "web"], "write NAMESPACE/NAME"),
        (["--pod", "web"], "write NAMESPACE/NAME"),
        (["--reason", "none"], "no_backend"),
        (["--address", "here"], "here"),
        (["--sample", "0"], "--sample"),
        (["--bpffs", "/no/such"], "was an agent of this version"),
    ],
)
def test_wrong_usage(world: World, flags: list[str], said: str) -> None:
    """One line that names what is wrong, and status 2."""
    argv = [*command(), "monitor", "--bpffs", str(world.agent.bpffs), *flags]
    assert said in refused(world.node.run(*argv, check=False))
