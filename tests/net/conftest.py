"""Clusters that the tests of a module share, and the reason why none can run here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.bed import Cluster, Host, Pod, missing
from tests.bed.process import PATIENCE
from tests.net.bulk import make
from tests.net.outside import SERVICES, Outside
from tests.net.world import World

HERE = Path(__file__).parent
EMULATED = 8
"""The patience that `tests.vm` asks for."""
FEWER = ("--pod-devices", "off", "--xdp", "off")
"""There, each million instructions that the verifier follows takes a minute."""


def needs_net() -> None:
    """Skip, by name and with the reason, where the bed cannot stand."""
    if reason := missing():
        pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are `net` tests."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.net)


@pytest.fixture(autouse=True, scope="session")
def _net() -> None:
    needs_net()


def _lasting(fixture_name: str, config: pytest.Config) -> Literal["module", "session"]:  # noqa: ARG001
    """Emulated, agents take a minute to start: there, all files share them."""
    return "session" if PATIENCE >= EMULATED else "module"


def _serve(pod: Pod) -> None:
    """HTTP on 8080, DNS on 5353, UDP echo on 5000."""
    pod.nginx()
    pod.dns()
    pod.udp_echo()


@pytest.fixture(scope=_lasting)
def one_node() -> Iterator[Cluster]:
    """One node with pods web-0, web-1 (servers) and app-0 (a client)."""
    with Cluster(nodes=1) as cluster:
        node = cluster.nodes[0]
        for name in ("web-0", "web-1"):
            _serve(node.pod(name))
        node.pod("app-0")
        yield cluster


@pytest.fixture(scope=_lasting)
def two_nodes() -> Iterator[Cluster]:
    """Two nodes; n1 has pods web-0 and app-0, n2 has web-1 and app-1."""
    with Cluster(nodes=2) as cluster:
        for number, node in enumerate(cluster.nodes):
            _serve(node.pod(f"web-{number}"))
            node.pod(f"app-{number}")
        yield cluster


@pytest.fixture(scope=_lasting, params=["one_node", "two_nodes"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Agents on the nodes of a cluster, one node and then two, and nothing to serve yet.

    A file names other clusters, and flags, by `parametrize("world", ..., indirect=True)`: NAME, or
    a tuple of NAME and flags.
    """
    name, *flags = (request.param,) if isinstance(request.param, str) else request.param
    cluster = request.getfixturevalue(name)
    world = World(cluster, tmp_path_factory.mktemp("manifests"))
    try:
        if PATIENCE >= EMULATED:
            world.start(*flags, *FEWER, most=1)
        else:
            world.start(*flags)
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def outside(world: World) -> Outside:
    """The client beyond the router, whose way to all services leads through n1."""
    world.cluster.route(SERVICES, world.node)
    return Outside(world)


@pytest.fixture(scope="session")
def megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 20 MB that no two parts of are alike."""
    return make(tmp_path_factory.mktemp("megabytes") / "sent")


@pytest.fixture(params=["pod", "node"])
def client(request: pytest.FixtureRequest, world: World) -> Host:
    """A pod that is no backend, and the node's own processes, on n1."""
    return world.app if request.param == "pod" else world.node
