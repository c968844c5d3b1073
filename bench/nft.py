"""The rules that kube-proxy's nftables mode makes of services, as text for `nft -f`. Pure.

Their shape is that of KEP-3866: one look-up by address, protocol and port, one by port alone for
node ports, a chain a service, a random endpoint; what is on another node is masqueraded. One
difference: a service's endpoints are one map and not a chain each, which loads in a tenth of the
time and costs a packet no more. For comparison in benchmarks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_MARK = "0x4000"


class Forwarded(NamedTuple):
    """A TCP service: where it is asked for, and who answers."""

    address: str
    port: int
    endpoints: Sequence[tuple[str, int]]
    node_port: int = 0
    masquerade: bool = False
    """For connections to the node port; needed where an endpoint is on another node."""


def rules(table: str, services: Iterable[Forwarded]) -> str:
    """The whole table, `ip` or `ip6`, in place of the one that is there, if any."""
    numbered = list(enumerate(services))
    kind = "ipv4_addr" if table == "ip" else "ipv6_addr"
    return "\n".join(
        [
            f"table {table} kube-proxy",
            f"delete table {table} kube-proxy",
            f"table {table} kube-proxy {{",
            *_chains(table, numbered),
            f"map service-ips {{ type {kind} . inet_proto . inet_service : verdict",
            _elements(
                f"{one.address} . tcp . {one.port} : goto service-{number}"
                for number, one in numbered
            ),
            "}",
            "map node-ports { type inet_proto . inet_service : verdict",
            _elements(
                f"tcp . {one.node_port} : goto external-{number}"
                for number, one in numbered
                if one.node_port
            ),
            "}",
            "chain services {",
            f"{table} daddr . meta l4proto . th dport vmap @service-ips",
            "fib daddr type local meta l4proto . th dport vmap @node-ports",
            "}",
            "chain prerouting { type nat hook prerouting priority dstnat; jump services; }",
            "chain output { type nat hook output priority -100; jump services; }",
            "chain forward { type filter hook forward priority filter; ct state invalid drop; }",
            "chain postrouting { type nat hook postrouting priority srcnat",
            f"meta mark and {_MARK} == 0 return",
            f"meta mark set meta mark xor {_MARK}",
            "masquerade fully-random",
            "}",
            "}",
            "",
        ]
    )


def _chains(table: str, numbered: Iterable[tuple[int, Forwarded]]) -> Iterator[str]:
    for number, one in numbered:
        places = ", ".join(
            f"{place} : {address} . {port}" for place, (address, port) in enumerate(one.endpoints)
        )
        choice = f"numgen random mod {len(one.endpoints)} map {{ {places} }}"
        yield f"chain service-{number} {{ meta l4proto tcp dnat {table} to {choice}; }}"
        if one.node_port:
            mark = f"meta mark set meta mark or {_MARK};" if one.masquerade else ""
            yield f"chain external-{number} {{ {mark} goto service-{number}; }}"


def _elements(texts: Iterable[str]) -> str:
    joined = ",\n".join(texts)
    return f"elements = {{ {joined} }}" if joined else ""
