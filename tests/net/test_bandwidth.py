"""Bandwidth limits of pods as an operator sees them, on a kernel with fq and on one without."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bpf.qdisc import has_fq
from lb.limits.bbr import is_there
from tests.bed import BedError, Pod, until
from tests.bed.manifests import pod
from tests.net.world import World

pytestmark = pytest.mark.parametrize("world", ["one_node"], indirect=True)

HAS_FQ = has_fq()
_CONTROL = """
import json, socket
found = {where}.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
print(json.dumps(found.rstrip(bytes(1)).decode()))
"""
IN_FORCE = "enforced" if HAS_FQ else "not enforced: no fq in this kernel"


def limits(world: World) -> dict[str, dict[str, Any]]:
    """The rows of `show limits`, by pod."""
    shown = world.agent.tidegate("show", "limits", "-o", "json").stdout
    return {row["pod"]: row for row in json.loads(shown)}


def await_limits(
    world: World, good: Callable[[dict[str, dict[str, Any]]], bool]
) -> dict[str, dict[str, Any]]:
    """The rows once they are good."""
    until(lambda: good(limits(world)), "limits", timeout=10)
    return limits(world)


def limited(world: World, one: Pod, **annotations: Any) -> None:
    """The pod's manifest with these annotations; returns once the agent has read it."""
    addresses = annotations.pop("addresses", one.addresses)
    world.write(one.name, pod(one.name, node="n1", addresses=addresses, **annotations))


def queue(world: World, device: str) -> str:
    """The kind of the queue at a device's root, and whose it is."""
    shown = json.loads(world.node.run("tc", "-j", "qdisc", "show", "dev", device).stdout)
    root = next(one for one in shown if one.get("root"))
    return f"{root['kind']} {root['handle']}"


def test_a_limit_is_shown(world: World) -> None:
    """Namespace, pod, addresses, both rates, and whether they are in force, and why not."""
    limited(world, world.app, egress="10M", ingress="1.5G")
    row = await_limits(world, lambda rows: rows.get("app-0", {}).get("state") == IN_FORCE)["app-0"]
    assert (row["namespace"], row["address"]) == ("default", ",".join(world.app.addresses))
    assert (row["egress_bits_per_second"], row["ingress_bits_per_second"]) == (10**7, 15 * 10**8)
    assert row["egress"]["state"] == row["ingress"]["state"] == IN_FORCE
    text = world.agent.tidegate("show", "limits").stdout
    assert "default/app-0" in text
    assert "10 Mbit/s" in text


def test_status_says_whether_limits_can_be(world: World) -> None:
    """On with its devices; or off, with the reason, and healthy all the same."""
    status = world.agent.status()
    feature = status["features"]["bandwidth"]
    assert status["healthy"]
    if HAS_FQ:
        assert (feature["state"], feature["devices"]) == ("on", ["eth0"])
    else:
        assert feature["state"] == "off"
        assert "no fq in this kernel" in feature["reason"]


def test_queues_are_put_on_and_taken_off(world: World) -> None:
    """With the first limit, on the devices that need one; gone with the last; none without fq."""
    device = f"v-{world.app.name}"
    limited(world, world.app, egress="10M", ingress="10M")
    await_limits(world, lambda rows: rows["app-0"]["state"] == IN_FORCE)
    found = [queue(world, one) for one in ("eth0", device)]
    assert found == (["fq 7d1e:"] * 2 if HAS_FQ else ["noqueue 0:"] * 2)
    world.remove(world.app.name)
    await_limits(world, lambda rows: not rows)
    until(
        lambda: queue(world, "eth0") == queue(world, device) == "noqueue 0:",
        "no queues",
        timeout=10,
    )


def test_a_malformed_value_leaves_the_limit_in_force(world: World) -> None:
    """Never silently unlimited: the last good value holds, over a restart too; status says so."""
    limited(world, world.app, egress="20M")
    await_limits(world, bool)
    limited(world, world.app, egress="10Mbit")
    world.agent.restart()
    row = await_limits(world, bool)["app-0"]
    assert row["egress_bits_per_second"] == 20_000_000
    (refused,) = world.agent.status()["refused"]
    assert refused["subject"] == "Pod default/app-0"
    assert "'10Mbit' is no quantity" in refused["reason"]
    assert "20000000 bit/s stay in force" in world.agent.log
    limited(world, world.app, egress="30M")
    await_limits(world, lambda rows: rows["app-0"]["egress_bits_per_second"] == 30_000_000)
    assert world.agent.status()["refused"] == []


def test_a_pod_on_the_hosts_network_is_limited_by_its_cgroup(world: World) -> None:
    """Found by the pod's uid, also when it appears later; what it receives never is, and why."""
    asked = {"host_network": True, "addresses": world.node.addresses, "uid": "1-2-3"}
    limited(world, world.near, egress="10M", ingress="10M", **asked)
    row = await_limits(world, lambda rows: "web-0" in rows)["web-0"]
    not_found = "not enforced: the pod is on the host's network"
    assert all(row[way]["state"].startswith(not_found) for way in ("egress", "ingress"))
    group = world.node.group / "kubepods" / "pod1-2-3"
    group.mkdir(parents=True)
    row = await_limits(world, lambda rows: rows["web-0"]["egress"]["state"] == IN_FORCE)["web-0"]
    assert row["address"] == f"cgroup {group.stat().st_ino}"
    assert row["ingress"]["state"].startswith(not_found)
    world.remove(world.near.name)
    await_limits(world, lambda rows: "web-0" not in rows)


@pytest.mark.parametrize("gone", [{"phase": "Succeeded"}, {"node": "n2"}, {}], ids=str)
def test_who_is_no_pod_of_this_node_has_no_limit(world: World, gone: dict[str, str]) -> None:
    """One that ended, one of another node, one without the annotation."""
    limited(world, world.app, egress="10M")
    await_limits(world, bool)
    without = {"node": "n1", "addresses": world.app.addresses} | gone
    world.write(world.app.name, pod("app-0", egress="10M" if gone else None, **without))
    await_limits(world, lambda rows: not rows)


def test_metrics_count_per_pod(world: World) -> None:
    """Rates, whether in force, and counts, by namespace, pod and direction."""
    limited(world, world.app, egress="10M")
    await_limits(world, bool)
    text = world.node.python(
        "import json, urllib.request as u; "
        "print(json.dumps(u.urlopen('http://127.0.0.1:10249/metrics').read().decode()))"
    )
    labels = '{direction="egress",namespace="default",pod="app-0"}'
    assert f"tidegate_limit_bits_per_second{labels} 1e+07" in text
    assert f"tidegate_limit_enforced{labels} {float(HAS_FQ)}" in text
    assert f"tidegate_limit_dropped_total{labels} 0.0" in text
    assert f"tidegate_limit_delayed_bytes_total{labels} 0.0" in text


@pytest.mark.skipif(HAS_FQ, reason="for a kernel without fq")
def test_limits_that_are_demanded_refuse_to_start_without_fq(world: World) -> None:
    """`--bandwidth on` says why, in one line."""
    world.agent.stop()
    world.agent.flags = ("--bandwidth", "on")
    with pytest.raises(BedError, match="ended before it was ready") as refused:
        world.agent.start()
    assert "--bandwidth on: no fq in this kernel" in str(refused.value)
    world.agent.flags = ()
    world.agent.start()


def test_pods_use_bbr_where_it_is_asked_for(world: World) -> None:
    """Their connections and no others; without the flag all is as it was."""
    if not is_there():
        pytest.skip("needs a kernel with BBR (tcp_bbr)")
    for host in (world.app, world.node):
        host.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
    where = f"socket.create_connection(('{world.near.ipv4}', 8080))"
    asked = _CONTROL.format(where=where)
    world.agent.flags = ("--pod-bbr", "on")
    world.agent.restart()
    until(lambda: world.app.python(asked) == "bbr", "BBR", timeout=10)
    assert world.node.python(asked) == "reno"
    until(lambda: world.agent.status()["features"]["pod-bbr"] == {"state": "on"}, "so", timeout=5)
    world.agent.flags = ()
    world.agent.restart()
    until(lambda: world.app.python(asked) == "reno", "no BBR", timeout=10)


def test_limits_can_be_switched_off(world: World) -> None:
    """`--bandwidth off` forgets them and takes everything off."""
    limited(world, world.app, egress="11M")
    await_limits(world, bool)
    world.agent.flags = ("--bandwidth", "off")
    world.agent.restart()
    await_limits(world, lambda rows: not rows)
    until(lambda: queue(world, "eth0") == "noqueue 0:", "no queue", timeout=10)
    assert world.agent.status()["features"]["bandwidth"]["reason"] == "--bandwidth off"
    world.agent.flags = ()
    world.agent.restart()
    await_limits(world, bool)
