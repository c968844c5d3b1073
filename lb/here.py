"""Addresses of nodes in the maps: this one's, those that accept node ports, and other nodes'."""

from __future__ import annotations

from collections.abc import Collection

from bpf.layout import AddressFlag, Node, NodeAddress
from bpf.maps import Array, Hash
from lb.address import Address, Family, family
from lb.config import Settings
from lb.nodeports import accepting


class Addresses:
    """The table `addresses`. Not thread-safe."""

    def __init__(self, table: Hash, settings: Settings) -> None:
        self.table, self._settings = table, settings
        self.written = dict(table.items())
        """Packed entries that the table holds."""
        self.local: dict[Address, int] = {}
        """Flags (`AddressFlag`) by address, as they are in the table."""

    def update(
        self,
        held: Collection[Address],
        primary: Collection[Address],
        peers: Collection[Address] = (),
    ) -> bool:
        """Make the table say what the devices hold; False: it already did. Raises OSError.

        `peers` are other nodes', which may hand over packets for pods of this one.
        """
        settings = self._settings
        self.local = accepting(
            held,
            setting=settings.nodeport_addresses,
            mode=settings.proxy_mode,
            localhost=settings.localhost_nodeports,
            primary=primary,
        )
        flags = dict.fromkeys(peers, int(AddressFlag.PEER)) | self.local
        wanted = {bytes(a): NodeAddress(one).pack() for a, one in flags.items()}
        changed = {k: v for k, v in wanted.items() if self.written.get(k) != v}
        gone = self.written.keys() - wanted.keys()
        if changed:
            self.table.put(changed)
        if gone:
            self.table.remove(gone)
        self.written = wanted
        return bool(changed or gone)


class Identity:
    """The table `node`: this network namespace and the node's primary addresses."""

    def __init__(self, table: Array, netns: int) -> None:
        self._table, self._netns = table, netns
        self._wanted = b""

    def update(self, primary: Collection[Address]) -> None:
        """Make the table say so; zeros where a family has no address. Raises OSError."""
        own = {family(address): bytes(address) for address in primary}
        v4, v6 = (own.get(one, bytes(16)) for one in (Family.IPV4, Family.IPV6))
        self._wanted = Node(self._netns, v4, v6).pack()
        self.mend()

    def mend(self) -> bool:
        """See to it that the table says what it was last told; False: it already did."""
        if not self._wanted or self._table.read(0) == self._wanted:
            return False
        self._table.write(0, self._wanted)
        return True


def one_of_each(addresses: Collection[Address]) -> tuple[Address, ...]:
    """The first address of each family."""
    found: dict[Family, Address] = {}
    for address in addresses:
        found.setdefault(family(address), address)
    return tuple(found.values())
