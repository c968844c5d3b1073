"""This node's own addresses in the maps: which they are, and which accept node ports."""

from __future__ import annotations

from collections.abc import Collection

from bpf.layout import NodeAddress
from bpf.maps import Hash
from lb.address import Address, Family, family
from lb.config import Settings
from lb.nodeports import accepting


class Addresses:
    """The table `addresses`. Not thread-safe."""

    def __init__(self, table: Hash, settings: Settings) -> None:
        self._table, self._settings = table, settings
        self._written = dict(table.items())
        self.local: dict[Address, int] = {}
        """Flags (`AddressFlag`) by address, as they are in the table."""

    def update(self, held: Collection[Address], primary: Collection[Address]) -> bool:
        """Make the table say what the devices hold; False: it already did. Raises OSError."""
        settings = self._settings
        self.local = accepting(
            held,
            setting=settings.nodeport_addresses,
            mode=settings.proxy_mode,
            localhost=settings.localhost_nodeports,
            primary=primary,
        )
        wanted = {bytes(a): NodeAddress(flags).pack() for a, flags in self.local.items()}
        changed = {k: v for k, v in wanted.items() if self._written.get(k) != v}
        gone = self._written.keys() - wanted.keys()
        if changed:
            self._table.put(changed)
        if gone:
            self._table.remove(gone)
        self._written = wanted
        return bool(changed or gone)


def one_of_each(addresses: Collection[Address]) -> tuple[Address, ...]:
    """The first address of each family."""
    found: dict[Family, Address] = {}
    for address in addresses:
        found.setdefault(family(address), address)
    return tuple(found.values())
