"""The wiring of a cluster as shell text: which devices, addresses, routes and settings.

Pure: `tests.bed.cluster` runs each text inside the namespace that it is for. Veth pairs are made
inside their namespaces, so nothing ever shows up in the machine's own.

    client --- wire (router) === bridge === node n1 --- pods of n1
    198.51.100.10           192.168.77.1    192.168.77.11  10.244.1.0/24
    2001:db8:51::10         fd00:77::1      fd00:77::11    fd00:10:244:1::/64
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Pair(NamedTuple):
    """One address of each family, in text form."""

    ipv4: str
    ipv6: str


CLIENT = Pair("198.51.100.10", "2001:db8:51::10")
ROUTER = Pair("192.168.77.1", "fd00:77::1")
_CLIENT_ROUTER = Pair("198.51.100.1", "2001:db8:51::1")
_POD_ROUTER = "fe80::1"

_EVERY = {
    "ipv4/conf/*/rp_filter": 0,
    "ipv4/conf/*/send_redirects": 0,
    "ipv6/conf/*/disable_ipv6": 0,
    "ipv6/conf/*/accept_ra": 0,
    # Both must be off for an address to be usable at once (addrconf_dad_begin).
    "ipv6/conf/*/accept_dad": 0,
}
_FORWARDING = {"ipv4/ip_forward": 1, "ipv6/conf/*/forwarding": 1}


def node_address(number: int) -> Pair:
    """The addresses of node 1 to 9."""
    return Pair(f"192.168.77.{10 + number}", f"fd00:77::{10 + number}")


def pod_address(node: int, pod: int) -> Pair:
    """The addresses of the pod with that number, from 0, on a node."""
    return Pair(f"10.244.{node}.{10 + pod}", f"fd00:10:244:{node}::{10 + pod}")


def pod_cidr(node: int) -> Pair:
    """The prefixes of a node's pods."""
    return Pair(f"10.244.{node}.0/24", f"fd00:10:244:{node}::/64")


def _script(
    settings: dict[str, int],
    links: Iterable[str],
    *,
    no_checksum_offload: Iterable[str] = (),
    napi: Iterable[str] = (),
) -> str:
    """Settings first, since devices take theirs when they are made; then one `ip -batch`."""
    names = (
        (name.replace("*", which), value)
        for name, value in settings.items()
        for which in (("all", "default") if "*" in name else ("",))
    )
    return "\n".join(
        [
            *(f"echo {value} > /proc/sys/net/{name}" for name, value in names),
            "ip -batch - <<'END'",
            *links,
            "END",
            # A veth hands over packets with unfinished checksums, which no wire does.
            *(f"ethtool -K {device} tx off > /dev/null" for device in no_checksum_offload),
            # What XDP sends into a veth is taken at the other end only so.
            *(f"ethtool -K {device} gro on > /dev/null" for device in napi),
            "",
        ]
    )


def wire() -> str:
    """The network between the nodes, before anybody is plugged in.

    What it has no route for vanishes without an answer, as on the way to the Internet.
    """
    return _script(
        _FORWARDING | _EVERY,
        [
            "link set lo up",
            "link add br0 type bridge mcast_snooping 0",
            "link set br0 up",
            f"addr add {ROUTER.ipv4}/24 dev br0",
            f"addr add {ROUTER.ipv6}/64 dev br0 nodad",
            "route add blackhole default",
            "route add blackhole ::/0",
        ],
    )


def client(wire_namespace: str) -> str:
    """The client outside, with its cable to the wire."""
    return _script(
        _EVERY,
        [
            "link set lo up",
            f"link add eth0 type veth peer name outside netns {wire_namespace}",
            "link set eth0 up",
            f"addr add {CLIENT.ipv4}/24 dev eth0",
            f"addr add {CLIENT.ipv6}/64 dev eth0 nodad",
            f"route add default via {_CLIENT_ROUTER.ipv4}",
            f"route add ::/0 via {_CLIENT_ROUTER.ipv6}",
        ],
        no_checksum_offload=["eth0"],
    )


def node(number: int, count: int, wire_namespace: str) -> str:
    """Node `number` of `count`, with its cable to the wire and the way to the others' pods."""
    own = node_address(number)
    others = [other for other in range(1, count + 1) if other != number]
    return _script(
        _FORWARDING | _EVERY,
        [
            "link set lo up",
            f"link add eth0 type veth peer name n{number} netns {wire_namespace}",
            "link set eth0 up",
            f"addr add {own.ipv4}/24 dev eth0",
            f"addr add {own.ipv6}/64 dev eth0 nodad",
            f"route add default via {ROUTER.ipv4}",
            f"route add ::/0 via {ROUTER.ipv6}",
            *_pod_routes(others),
        ],
        no_checksum_offload=["eth0"],
    )


def wire_ports(count: int) -> str:
    """The wire's ends of all cables, once nodes 1 to `count` and the client have theirs."""
    ports = [f"n{number}" for number in range(1, count + 1)]
    return _script(
        {},
        [
            *(f"link set {port} master br0 up" for port in ports),
            "link set outside up",
            f"addr add {_CLIENT_ROUTER.ipv4}/24 dev outside",
            f"addr add {_CLIENT_ROUTER.ipv6}/64 dev outside nodad",
            *_pod_routes(range(1, count + 1)),
        ],
        no_checksum_offload=[*ports, "outside"],
        napi=ports,
    )


def wire_routes(prefixes: Pair, via: Pair) -> str:
    """The way from the wire to addresses that a node attracts, as by BGP or a cloud's route."""
    return _script(
        {}, [f"route replace {one} via {to}" for one, to in zip(prefixes, via, strict=True)]
    )


def pod(own: Pair, router: Pair, device: str, node_namespace: str) -> str:
    """A pod; `device` is the node's end of its cable."""
    return _script(
        _EVERY,
        [
            "link set lo up",
            f"link add eth0 type veth peer name {device} netns {node_namespace}",
            "link set eth0 up",
            f"addr add {own.ipv4}/32 dev eth0",
            f"addr add {own.ipv6}/128 dev eth0 nodad",
            f"route add {router.ipv4} dev eth0 scope link",
            f"route add default via {router.ipv4} src {own.ipv4}",
            f"route add ::/0 via {_POD_ROUTER} dev eth0 src {own.ipv6}",
        ],
    )


def pod_port(own: Pair, router: Pair, device: str) -> str:
    """The node's end of a pod's cable. `router` is the node, as which it speaks to the pod."""
    return _script(
        {},
        [
            f"link set {device} up",
            f"addr add {_POD_ROUTER}/64 dev {device} nodad",
            f"route add {own.ipv4}/32 dev {device} src {router.ipv4}",
            f"route add {own.ipv6}/128 dev {device} src {router.ipv6}",
        ],
    )


def _pod_routes(nodes: Iterable[int]) -> list[str]:
    return [
        f"route add {prefix} via {via}"
        for number in nodes
        for prefix, via in zip(pod_cidr(number), node_address(number), strict=True)
    ]
