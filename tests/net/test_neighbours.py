"""Ways to other nodes are kept resolved, and let go of."""

from __future__ import annotations

import pytest

from tests.bed import until
from tests.net.outside import FAMILY, PROTOCOL, SERVICES, Met, Outside, ask
from tests.net.world import World

pytestmark = pytest.mark.parametrize("world", ["two_nodes"], indirect=True)
ROUTER = {"192.168.77.1", "fd00:77::1"}
OTHER = {"192.168.77.12", "fd00:77::12"}


def kept(world: World) -> dict[str, str]:
    """The neighbours that n1's kernel keeps for us, and the state of each."""
    shown = world.node.run("ip", "-d", "neigh", "show", "nud", "all").stdout
    ours = [line.split() for line in shown.splitlines() if " managed " in line]
    return {words[0]: words[-3] for words in ours if words[-2:] == ["proto", "116"]}


def await_kept(world: World, *sets: set[str]) -> None:
    """Returns once these are kept and resolved, and no others are."""
    wanted = dict.fromkeys(set().union(*sets), "REACHABLE")
    until(lambda: kept(world) == wanted, f"{wanted}", timeout=20)


def test_gateways_and_nodes(world: World) -> None:
    """The default gateway from the start; another node once it has a backend, and only so long."""
    await_kept(world, ROUTER)
    world.serve("ways", world.webs)
    await_kept(world, ROUTER, OTHER)
    world.remove("ways")
    await_kept(world, ROUTER)


@FAMILY
@PROTOCOL
def test_the_first_packet_is_not_lost(world: World, protocol: str, family: str) -> None:
    """With all neighbours forgotten, a connection from outside is served; and they come back.

    Each that comes back is counted as a repair, whatever made the agent look.
    """
    world.cluster.route(SERVICES, world.node)
    place = Outside(world).expose(f"first-{protocol}-{family}", [world.far], protocol=protocol)
    at = place["balancer"]
    await_kept(world, ROUTER, OTHER)
    before = world.agent.status()["repairs"]["neighbour"]
    world.node.run("ip", "neigh", "flush", "dev", "eth0", "nud", "all")
    met = ask(world.cluster.client, protocol, getattr(at.at, family), at.port)
    assert met == Met(world.far.name, getattr(world.node, family))
    world.node.run("ip", "link", "add", "stir0", "type", "veth", "peer", "name", "stir1")
    world.node.run("ip", "link", "del", "stir0")
    await_kept(world, ROUTER, OTHER)
    until(
        lambda: world.agent.status()["repairs"]["neighbour"] == before + len(ROUTER | OTHER),
        "all four counted", timeout=20,
    )  # fmt: skip


def test_a_static_entry_is_left_alone(world: World) -> None:
    """What somebody wrote down is not asked for, nor ever let go of."""
    world.serve("static", world.webs)
    await_kept(world, ROUTER, OTHER)
    mac = world.node.run("cat", "/sys/class/net/lo/address").stdout.strip()
    static = ("192.168.77.12", "dev", "eth0", "lladdr", mac, "nud", "permanent")
    world.node.run("ip", "neigh", "replace", *static)
    until(lambda: "192.168.77.12" not in kept(world), "static", timeout=20)
    world.agent.restart()
    await_kept(world, ROUTER, OTHER - {"192.168.77.12"})
    assert "PERMANENT" in world.node.run("ip", "neigh", "show", "192.168.77.12").stdout
    world.node.run("ip", "neigh", "del", "192.168.77.12", "dev", "eth0")


def test_cleanup_lets_go(world: World) -> None:
    """Nothing is kept by our number after it; while no agent runs before it, the kernel goes on."""
    before = kept(world)
    world.agent.stop()
    assert kept(world).keys() == before.keys()
    world.agent.tidegate("cleanup")
    assert kept(world) == {}
