"""Every command that the README shows is run on a node that serves.

`make` and `.ci/run` are CI itself; benchmarks and generators take minutes or tools, and have to be
there. What else stands in the README as a command and is not known here fails.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from tests.bed.agent import command
from tests.bed.process import REPOSITORY
from tests.net.outside import Outside
from tests.net.world import World

LINK = Ether(dst="02:00:00:00:00:01")
"""With an address: scapy would ask the network for one."""

pytestmark = pytest.mark.parametrize("world", ["one_node"], indirect=True)
TEXT = (REPOSITORY / "README.md").read_text()
SHOWN = sorted(
    set(re.findall(r"`(tidegate [a-z][^`]*)`", TEXT))
    | {f"tidegate show {what}" for what in re.findall(r"`([a-z]+)`(?=[^|]* likewise)", TEXT)}
)
MADE = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", TEXT, re.MULTILINE))
MODULES = sorted(set(re.findall(r"`python -m ([a-z.]+)", TEXT)))
OTHERS = {"kubectl get events", "ssh -L", ".ci/run"}


class Run(NamedTuple):
    """What stands for the words in capitals, and what the command has to print."""

    argv: str
    says: str = ""
    status: int = 0


RUNS = {
    "tidegate agent": [],  # it runs
    "tidegate check": [Run("check", "FEATURE")],
    "tidegate explain": [
        Run("explain tcp CLIENT:40000 SERVICE:80", "verdict: local"),
        Run("explain --capture CAPTURE", "verdict: local"),
    ],
    "tidegate explain tcp SRC:PORT DST:PORT": [
        Run("explain tcp CLIENT:40000 SERVICE:81", "no_service_port", 1),
        Run("explain udp POD:40000 SERVICE:53 --from-pod default/web-0", "", 1),
    ],
    "tidegate monitor": [Run("monitor --service default/shown --count 1", "(default/shown)")],
    "tidegate plan DIR": [Run("plan deploy/demo/manifests --node-name n1", "service 1")],
    "tidegate show services": [
        Run("show services --service default/shown", "default/shown"),
        Run("show services --address SERVICE", "default/shown"),
    ],
    "tidegate show backends": [Run("show backends", "default/shown")],
    "tidegate show drops": [Run("show drops", "no_backend")],
    "tidegate show flows": [Run("show flows", "")],
    "tidegate show limits": [Run("show limits", "none")],
    "tidegate show affinity": [Run("show affinity", "none")],
    "tidegate show maps": [Run("show maps", "frontends")],
    "tidegate status": [Run("status", "n1"), Run("status -o json", '"healthy": true')],
    "tidegate sysdump FILE.tar.gz": [Run("sysdump ARCHIVE", "status")],
    "tidegate top": [Run("top --count 1 --interval 0.2", "default/shown")],
    "tidegate verify": [Run("verify", "")],
    "tidegate cleanup": [Run("cleanup", "")],
}


@pytest.fixture(autouse=True)
def _served(world: World) -> None:
    assert world.agents


@pytest.fixture(scope="module")
def words(
    outside: Outside, world: World, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the words in capitals stand for."""
    at = outside.expose("shown", [world.near])["cluster"].at.ipv4
    folder, client = tmp_path_factory.mktemp("files"), outside.client.ipv4
    packet = LINK / IP(src=client, dst=at) / TCP(sport=40000, dport=80, flags="S")
    wrpcap(str(folder / "some.pcap"), [packet])
    return {
        "CLIENT": client, "SERVICE": at, "POD": world.near.ipv4,
        "CAPTURE": str(folder / "some.pcap"), "ARCHIVE": str(folder / "dump.tar.gz"),
    }  # fmt: skip


def test_each_is_known() -> None:
    """A command that comes into the README comes in here, too."""
    assert set(SHOWN) == RUNS.keys()
    assert len(SHOWN) > 15


def test_the_others_are_there(world: World) -> None:
    """What `make` can make, the modules that are run, and no other programs than those named."""
    assert world.node.run("make", "help", timeout=20).stdout
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert targets >= MADE
    for name in MODULES:
        assert callable(importlib.import_module(name).main), name
    inline = {
        text for text in re.findall(r"`([^`\n]+)`", TEXT) if re.match(r"[.a-z/]+ [-a-z]", text)
    }
    ours = {text for text in inline if text.startswith(("tidegate ", "make ", "python -m "))}
    assert {one for one in inline - ours if one.split()[0] in ("kubectl", "ssh", "curl")} <= OTHERS
    assert (REPOSITORY / ".ci" / "run").exists()


@pytest.mark.parametrize(
    ("shown", "number"),
    [
        (shown, n)
        for shown, runs in RUNS.items()
        if shown != "tidegate cleanup"
        for n in range(len(runs))
    ],
)
def test_it_runs(
    outside: Outside, world: World, words: dict[str, str], shown: str, number: int
) -> None:
    """It ends as it should, and prints what one looks for."""
    one = RUNS[shown][number]
    argv = [re.sub(r"[A-Z]{3,}", lambda word: words.get(word[0], word[0]), part)
            for part in one.argv.split()]  # fmt: skip
    if shown == "tidegate monitor":
        _monitored(outside, world, argv, words["SERVICE"], one.says)
        return
    done = world.agent.tidegate(*argv, check=False)
    assert (done.returncode, done.stderr) == (one.status, ""), done
    assert one.says in done.stdout


def _monitored(outside: Outside, world: World, argv: list[str], at: str, says: str) -> None:
    where = ("--bpffs", str(world.agent.bpffs), "--api-socket", str(world.agent.api_socket))
    listening = world.node.spawn(
        *command(), *argv, *where, ready=lambda process: "listening" in process.output
    )
    outside.client.python(
        "import socket, sys; socket.create_connection((sys.argv[1], 80)); print(1)", at
    )
    assert listening.wait() == 0
    assert says in listening.output


def test_cleanup_comes_last(world: World) -> None:
    """With the agent stopped, it takes everything off; then there is nothing to show."""
    world.agent.stop()
    done = world.agent.tidegate("cleanup", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert world.agent.tidegate("show", "services", check=False).returncode == 2


def test_paths_exist() -> None:
    """What it links to is there."""
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT) + re.findall(
        r"`((?:deploy|bench|bpf)/[^`* ]*)`", TEXT
    )
    assert links
    assert [one for one in links if not (REPOSITORY / Path(one)).exists()] == []
