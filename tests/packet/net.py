"""The addresses of the rows, one set for each family, so that every row is one of both."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.packet.bench import NODE
from tests.packet.given import Given, service
from tests.packet.packets import Make, tcp

BACKEND = 8080
"""The port of every backend."""


class Net(NamedTuple):
    """Addresses as text. `local` and `other` are pods of this node, `remote` ones of n2."""

    client: str
    neighbour: str
    """Another client."""
    vip: str
    node: str
    local: tuple[str, str]
    remote: tuple[str, str]
    nowhere: str
    """A pod to which this node has no route."""

    def at(self, address: str, port: int) -> str:
        """Both in one text."""
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def address_of(self, kind: str) -> str:
        """Where clients meet a service of this kind."""
        return self.node if kind == "node port" else self.vip

    @property
    def here(self) -> str:
        """A backend on this node."""
        return f"{self.at(self.local[0], BACKEND)} n1"

    @property
    def there(self) -> str:
        """A backend on the other node."""
        return f"{self.at(self.remote[0], BACKEND)} n2"


V4 = Net(
    "198.51.100.10", "198.51.100.11", "203.0.113.10", NODE[4],
    ("10.244.1.5", "10.244.1.6"), ("10.244.2.5", "10.244.2.6"), "10.244.9.5",
)  # fmt: skip
V6 = Net(
    "2001:db8:51::10", "2001:db8:51::11", "2001:db8:113::10", NODE[6],
    ("fd00:10:244:1::5", "fd00:10:244:1::6"), ("fd00:10:244:2::5", "fd00:10:244:2::6"),
    "fd00:10:244:9::5",
)  # fmt: skip


def offered(net: Net, l4: Make, *backends: str, kind: str = "load balancer", **more: Any) -> Given:
    """A service of one of the kinds, on port 80."""
    word = "tcp" if l4 is tcp else "udp"
    frontend = net.at(net.address_of(kind), 80)
    return service(f"{frontend}/{word}", *backends, kind=kind, **more)
