"""The command line on a running node: what each command says, in text and JSON, and its status."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bpf.pins import Pins
from tests.bed import Outcome, curl
from tests.bed.agent import Agent, command
from tests.bed.network import Pair
from tests.net.world import ECHO, World, url

# What is altered here stays so until it was looked at.
pytestmark = pytest.mark.parametrize(
    "world", [("one_node", "--repair-interval", "0")], indirect=True
)


FILLED = (
    "frontends", "services", "backends", "slots", "rings", "ranges", "vips", "addresses", "cidrs",
    "limits", "pods", "flows", "dsr_flows", "affinity",
)  # fmt: skip
"""The maps of which metrics tell how full they are."""


@pytest.fixture(scope="module")
def web(world: World) -> Pair:
    """A service of every kind of frontend, and one of UDP beside it."""
    world.serve("echo", world.webs, target=ECHO, protocol="UDP", affinity_seconds=100)
    return world.serve(
        "web", world.webs, node_port=30080, external_ips=["203.0.113.7"], kind="LoadBalancer",
        load_balancer=[{"ip": "203.0.113.9"}],
    )  # fmt: skip


def ask(world: World, *argv: str) -> Any:
    """The JSON of a command that must succeed."""
    return json.loads(world.agent.tidegate(*argv, "-o", "json").stdout)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error of a command that could not do what it was asked."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("tidegate: ")
    return done.stderr


def service_row(world: World, name: str) -> dict[str, Any]:
    """The only row of `show services` for a name; the agent is asked what fails."""
    shown = ask(world, "show", "services", "--api-socket", str(world.agent.api_socket))
    (row,) = [row for row in shown if row["name"] == name]
    found: dict[str, Any] = row
    return found


def test_show_services(world: World, web: Pair) -> None:
    """A service is one row: every frontend of both families, every backend, its state."""
    row = service_row(world, "web")
    assert {key: row[key] for key in ("namespace", "name", "port_name", "protocol", "state")} == {
        "namespace": "default", "name": "web", "port_name": "", "protocol": "TCP",
        "state": "applied",
    }  # fmt: skip
    frontends = {(one["type"], one["address"], one["port"]) for one in row["frontends"]}
    assert frontends >= {
        ("ClusterIP", web.ipv4, 80), ("ClusterIP", web.ipv6, 80),
        ("ExternalIP", "203.0.113.7", 80), ("LoadBalancer", "203.0.113.9", 80),
        ("NodePort", world.node.ipv4, 30080), ("NodePort", world.node.ipv6, 30080),
    }  # fmt: skip
    assert len(row["frontends"]) == len(frontends)
    states = {(one["port"], one["state"], one["weight"], one["node"]) for one in row["backends"]}
    assert states == {(8080, "ready", 1, "n1")}
    own = {address for pod in world.webs for address in pod.addresses}
    assert {one["address"] for one in row["backends"]} == own


def test_show_in_words(world: World, web: Pair) -> None:
    """Tables name the same things, IPv6 in brackets."""
    shown = world.agent.tidegate("show", "services").stdout
    assert shown.startswith("SERVICE")
    for part in ("default/web", f"{web.ipv4}:80", f"[{web.ipv6}]:80", "applied"):
        assert part in shown
    assert f"[{world.near.ipv6}]:8080" in world.agent.tidegate("show", "backends").stdout
    assert "no_backend" in world.agent.tidegate("show", "drops").stdout
    assert "frontends" in world.agent.tidegate("show", "maps").stdout


def test_show_backends_counts(world: World, web: Pair) -> None:
    """Connections through sockets are counted, and are open no more once they are closed."""

    def total() -> tuple[int, int]:
        rows = [row for row in ask(world, "show", "backends") if row["name"] == "web"]
        return sum(row["connections_total"] for row in rows), sum(
            row["connections"] for row in rows
        )

    before, _ = total()
    for own in web:
        assert curl(world.app, url(own)).outcome is Outcome.OK
    assert total() == (before + 2, 0)


def test_show_maps(world: World, web: Pair) -> None:
    """Every table says what is in it, and what it can hold."""
    assert web
    rows = {row["map"]: row for row in ask(world, "show", "maps")}
    frontends = sum(
        len({(f["address"], f["port"]) for f in row["frontends"] if f["type"] != "NodePort"})
        + 2 * any(f["type"] == "NodePort" for f in row["frontends"])
        for row in ask(world, "show", "services")
    )
    assert rows["frontends"]["entries"] == frontends
    assert rows["backends"]["entries"] == len(ask(world, "show", "backends"))
    for name in ("frontends", "services", "slots", "backends", "addresses", "names"):
        assert 0 < rows[name]["entries"] <= rows[name]["capacity"]
        assert rows[name]["memory_bytes"] > 0


def test_status(world: World, web: Pair) -> None:
    """A healthy node says so, with its counts and features, and exits with 0."""
    assert web
    status = ask(world, "status")
    assert status["healthy"] is True
    assert (status["node"], status["failing"]) == ("n1", [])
    assert (status["source"]["kind"], status["source"]["synced"]) == ("manifests", True)
    assert status["services"] == len(ask(world, "show", "services"))
    assert status["backends"] == len(ask(world, "show", "backends"))
    assert status["features"]["socket-lb"] == {"state": "on"}
    assert status["features"]["bandwidth"]["state"] == "off"
    assert status["features"]["bandwidth"]["reason"]
    assert status["features"]["healthz"] == {"state": "on", "at": "0.0.0.0:10256"}
    assert status["features"]["metrics"] == {"state": "on", "at": "127.0.0.1:10249"}
    assert status["features"]["health-checks"] == {"state": "on", "services": 0}
    text = world.agent.tidegate("status").stdout
    assert "healthy" in text
    assert "n1" in text


def test_failing_service(world: World, web: Pair) -> None:
    """A service that cannot be served whole is named with the reason; status exits with 1."""
    assert web
    world.serve("thief", [world.near], external_ips=["203.0.113.7"])
    done = world.agent.tidegate("status", "-o", "json", check=False)
    assert done.returncode == 1
    (row,) = json.loads(done.stdout)["failing"]
    assert (row["namespace"], row["name"], row["protocol"]) == ("default", "thief", "TCP")
    assert "203.0.113.7:80/TCP" in row["error"]
    assert row["error"] in world.agent.tidegate("status", check=False).stdout
    shown = service_row(world, "thief")
    assert (shown["state"], shown["error"]) == ("failing", row["error"])
    world.remove("thief")
    assert world.agent.tidegate("status").returncode == 0


def test_full_table(world: World, web: Pair) -> None:
    """Services beyond a table's size fail with the flag to raise; those that fit serve."""
    world.agent.flags = ("--max-services", "16")
    world.agent.restart()
    for number in range(8):
        world.serve(f"crowd-{number}", [world.near])
    done = world.agent.tidegate("status", "-o", "json", check=False)
    failing = json.loads(done.stdout)["failing"]
    assert done.returncode == 1
    assert failing
    assert all("--max-services" in row["error"] for row in failing)
    assert curl(world.app, url(web.ipv4)).outcome is Outcome.OK
    assert world.agent.tidegate("verify").returncode == 0
    for number in range(8):
        world.remove(f"crowd-{number}")
    world.agent.flags = ()
    world.agent.restart()
    assert world.agent.tidegate("status").returncode == 0


def test_broken_file(world: World, web: Pair) -> None:
    """A file that does not parse is named with the line, and harms nothing else."""
    with world.change():
        world.manifests.text("broken.yaml", "kind: Service\nmetadata: {name: [}\n")
    (row,) = ask(world, "status")["refused"]
    assert row["subject"] == "broken.yaml:2"
    assert row["reason"]
    assert curl(world.app, url(web.ipv4)).outcome is Outcome.OK
    world.remove("broken")
    assert ask(world, "status")["refused"] == []


ALTERED = [
    # table, what verify says
    ("frontends", "frontend"),
    ("backends", "backends differ"),
]


@pytest.mark.parametrize(("table", "said"), ALTERED)
def test_verify(world: World, web: Pair, table: str, said: str) -> None:
    """`verify` finds what somebody else altered in a map, and a restart puts it right."""
    assert web
    assert "as they should be" in world.agent.tidegate("verify").stdout
    alter(world, table)
    done = world.agent.tidegate("verify", check=False)
    assert done.returncode == 1
    assert said in done.stdout
    answer = json.loads(world.agent.tidegate("verify", "-o", "json", check=False).stdout)
    assert answer["good"] is False
    assert answer["differences"] == done.stdout.splitlines()
    world.agent.restart()
    assert world.agent.tidegate("verify").returncode == 0


def alter(world: World, table: str) -> None:
    """Remove one frontend, or give one backend another port."""
    pins = Pins(world.agent.bpffs)
    if table == "frontends":
        frontends = pins.open_hash("frontends")
        frontends.remove([next(iter(frontends.items()))[0]])
        return
    number = ask(world, "show", "backends")[0]["id"]
    backends = pins.open_array("backends")
    record = bytearray(backends.read(number))
    record[17] ^= 1
    backends.write(number, bytes(record))


def test_verify_finds_a_detached_program(world: World, web: Pair) -> None:
    """A hook that somebody removed is found by status and verify, and put back by a restart."""
    (world.agent.bpffs / "links" / "connect6").unlink()
    done = world.agent.tidegate("verify", check=False)
    assert (done.returncode, done.stdout) == (1, "connect6 is detached\n")
    done = world.agent.tidegate("status", "-o", "json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["features"]["socket-lb"]["state"] == "off"
    world.agent.restart()
    assert curl(world.app, url(web.ipv6)).outcome is Outcome.OK
    assert world.agent.tidegate("status").returncode == 0


def test_plan(world: World, web: Pair) -> None:
    """`plan` says what the agent has put into the maps, from the same files."""
    argv = ("plan", str(world.manifests.directory), "--node-name", "n1")
    planned = ask(world, *argv)

    def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "name": row["name"],
                "state": row["state"],
                "frontends": [f for f in row["frontends"] if f["type"] != "NodePort"],
                "backends": [(b["address"], b["port"], b["node"]) for b in row["backends"]],
            }
            for row in rows
        ]

    assert comparable(planned["services"]) == comparable(ask(world, "show", "services"))
    assert (planned["refused"], planned["failing"]) == ([], [])
    text = world.agent.tidegate(*argv).stdout
    assert f"frontend {web.ipv4}:80/TCP  ClusterIP" in text
    assert "node port 30080/TCP" in text


def test_plan_of_bad_files(world: World, tmp_path: Path) -> None:
    """`plan` exits with 1, and names what it cannot use, a line each."""
    (tmp_path / "bad.yaml").write_text("kind: Service\nmetadata: {name: [}\n")
    done = world.agent.tidegate("plan", str(tmp_path), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "bad.yaml" in done.stderr


def test_check(world: World) -> None:
    """`check` lists the kernel's features, each yes, no or unknown; here are all."""
    answer = ask(world, "check")
    assert answer["good"] is True
    assert {row["there"] for row in answer["features"]} <= {"yes", "no", "unknown"}
    assert all(row["there"] == "yes" for row in answer["features"] if row["required"])
    assert answer["memory_bytes"] > 0
    text = world.agent.tidegate("check").stdout
    assert answer["kernel"] in text
    assert all(row["name"] in text for row in answer["features"])


def test_agent_dead(world: World, web: Pair) -> None:
    """Without an agent `show` says the same; `status` and `verify` say that nobody answers."""
    before = {what: ask(world, "show", what) for what in ("services", "backends", "drops")}
    assert before["services"]
    world.agent.kill()
    try:
        assert {what: ask(world, "show", what) for what in before} == before
        for name in ("status", "verify"):
            assert "is one running?" in refused(world.agent.tidegate(name, check=False))
    finally:
        world.agent.start()
    assert curl(world.app, url(web.ipv4)).outcome is Outcome.OK


def test_second_agent(world: World) -> None:
    """A second agent on the same pins does not start, and leaves the first alone."""
    done = world.node.run(*command(), "agent", *world.agent._where(), check=False)
    assert "another agent" in refused(done)
    assert world.agent.tidegate("status").returncode == 0


def test_second_agent_on_the_same_devices(world: World, tmp_path: Path) -> None:
    """With pins of its own, too: one line, and the first one's programs stay in force."""
    first = world.agent
    folder = first.bpffs.parent / "second"
    other = Agent(first.node, first.group, folder, first.manifests)
    other.api_socket = tmp_path / "second.sock"
    done = world.node.run(*command(), "agent", *other._where(), check=False)
    assert "another agent serves this network namespace" in refused(done)
    assert first.tidegate("verify").returncode == 0


WRONG = [
    # arguments, what the line says
    (("show", "services", "--bpffs", "/run/tidegate-no-such"), "was an agent started with it?"),
    (("plan", "/no/such/folder"), "/no/such/folder"),
    (("show", "nonsense"), "nonsense"),
    (("nonsense",), "nonsense"),
    (("agent", "--node-ip", "nonsense"), "nonsense"),
    (("agent", "--max-backends", "3"), "--max-backends"),
    (("agent", "--nodeport-addresses", "nonsense"), "nonsense"),
    (("agent", "--nodeport-addresses", "primary,10.0.0.0/8"), "must stand alone"),
    (("agent", "--master", "http://127.0.0.1"), "--master"),
    (("agent", "--node-name", "a b"), "a b"),
    (("agent", "--config", "/no/such/file"), "/no/such/file"),
    (("agent", "--bandwidth", "perhaps"), "--bandwidth"),
    (("status", "--api-socket", "/no/such/socket"), "/no/such/socket"),
]


@pytest.mark.parametrize(("argv", "said"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_wrong_usage(world: World, argv: tuple[str, ...], said: str) -> None:
    """What cannot be done is told in one line that names it, with status 2."""
    # An agent that would start after all must not reach beyond the bed.
    where = world.agent._where() if argv[0] == "agent" else []
    assert said in refused(world.node.run(*command(), argv[0], *where, *argv[1:], check=False))


@pytest.mark.parametrize("name", ["agent", "status", "check", "show", "plan", "verify", "cleanup"])
def test_help(world: World, name: str) -> None:
    """Every command explains itself and its flags."""
    text = world.node.run(*command(), name, "--help").stdout
    assert text.startswith("Usage: ")
    assert "--bpffs" in text


def test_metrics(world: World) -> None:
    """The node's own processes can scrape the agent, and counts agree with `show`."""
    answer = curl(world.node, "http://127.0.0.1:10249/metrics")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[:1] != "#")
    assert lines["tidegate_synced"] == "1.0"
    assert float(lines['tidegate_map_entries{map="services"}']) > 0
    assert 'tidegate_drops_total{reason="no_backend"}' in lines
    rows = {row["map"]: row for row in ask(world, "show", "maps")}
    for name in FILLED:
        entries = float(lines[f'tidegate_map_entries{{map="{name}"}}'])
        assert float(lines[f'tidegate_map_capacity{{map="{name}"}}']) == rows[name]["capacity"]
        if name in {"slots", "rings"}:  # handed out by powers of two: not all is used
            assert entries >= rows[name]["entries"] > 0
        elif name != "limits":  # of which `show` does not know
            assert entries == rows[name]["entries"]
    assert float(lines['tidegate_map_entries{map="limits"}']) == 0
