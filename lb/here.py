"""Addresses in the maps that are no frontends: of nodes, of services, and ranges."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from bpf.layout import AddressFlag, Cidr, CidrKey, CidrKind, Node, NodeAddress
from bpf.maps import Array, Hash
from lb.address import Address, Family, Prefix, family
from lb.config import Settings
from lb.model import ServiceName
from lb.nodeports import accepting
from lb.tunnels import Tunnel


class Addresses:
    """The table `addresses`. Not thread-safe.

    What cannot be written stays due, and is tried again at each call.
    """

    def __init__(self, table: Hash, settings: Settings) -> None:
        self.table, self._settings = table, settings
        self.written = dict(table.items())
        """Packed entries that the table holds."""
        self.local: dict[Address, int] = {}
        """Flags (`AddressFlag`) of the node's own, as they are in the table."""
        self._of_service: dict[ServiceName, tuple[Address, ...]] = {}
        self._services: Counter[Address] = Counter()
        self._peers: frozenset[Address] = frozenset()
        # What an agent before left stays until all services are known.
        self._inherited = {
            Address(key)
            for key, value in self.written.items()
            if NodeAddress.unpack(value).flags & AddressFlag.CLUSTER_IP
        }
        self._due = {Address(key) for key in self.written}

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
        before = self.local
        self.local = accepting(
            held,
            setting=settings.nodeport_addresses,
            mode=settings.proxy_mode,
            localhost=settings.localhost_nodeports,
            primary=primary,
        )
        self._due |= before.keys() | self.local.keys() | self._peers | set(peers)
        self._peers = frozenset(peers)
        return self._settle()

    def serve(self, cluster_ips: Mapping[ServiceName, Collection[Address]]) -> bool:
        """These services have these cluster IPs from now on; none: it is gone. Raises OSError.

        To be called after frontends are written: a cluster IP is refused where it has none.
        """
        for name, own in cluster_ips.items():
            before, after = set(self._of_service.pop(name, ())), set(own)
            if after:
                self._of_service[name] = tuple(after)  # kept, sets would take four times as much
            self._services.update(after - before)
            self._services.subtract(before - after)
            self._due |= before ^ after
        return self._settle()

    def complete(self) -> bool:
        """All services are known: cluster IPs of an agent before go. Raises OSError."""
        self._due |= self._inherited
        self._inherited = set()
        return self._settle()

    def _settle(self) -> bool:
        wanted = {one: self._flags(one) for one in self._due}
        changed = {bytes(one): NodeAddress(flags).pack() for one, flags in wanted.items() if flags}
        changed = {key: value for key, value in changed.items() if self.written.get(key) != value}
        gone = [one for one, flags in wanted.items() if not flags and one in self.written]
        if changed:
            self.table.put(changed)
            self.written |= changed
        if gone:
            self.table.remove(gone)
            for one in gone:
                del self.written[one]
                self._services.pop(one, None)
        self._due = set()
        return bool(changed or gone)

    def _flags(self, address: Address) -> int:
        flags = self.local.get(address, 0)
        if self._services[address] > 0 or address in self._inherited:
            flags |= AddressFlag.CLUSTER_IP
        if address in self._peers and address not in self.local:
            flags |= AddressFlag.PEER
        return flags


class Cidrs:
    """The table `cidrs`: whose addresses lie where. Not thread-safe."""

    def __init__(self, table: Hash) -> None:
        self.table = table
        self.written = dict(table.items())
        """Packed entries that the table holds."""

    def update(self, services: Collection[Prefix], pods: Collection[Prefix]) -> bool:
        """Make the table hold these; False: it already did. Raises OSError."""
        kinds: Counter[Prefix] = Counter(dict.fromkeys(services, int(CidrKind.SERVICES)))
        kinds.update(dict.fromkeys(pods, int(CidrKind.PODS)))
        wanted = {
            CidrKey(length, address).pack(): Cidr(kind).pack()
            for (address, length), kind in kinds.items()
        }
        changed = wanted != self.written
        for key, value in wanted.items() - self.written.items():
            self.table.put({key: value})
            self.written[key] = value
        gone = self.written.keys() - wanted.keys()
        if gone:
            self.table.remove(gone)
            self.written = wanted
        return changed

    @staticmethod
    def name(key: bytes) -> str:
        """An entry's, for people."""
        record = CidrKey.unpack(key)
        return f"address range {Prefix((Address(record.address), record.prefix))}"


class Identity:
    """The table `node`: this network namespace, the node's primary addresses, its tunnel.

    For any thread.
    """

    def __init__(self, table: Array, netns: int) -> None:
        self._table = table
        self._node: Node | None = None
        self._netns = netns
        self._tunnels: Mapping[Family, Tunnel] = {}
        self._lock = threading.Lock()

    def update(self, primary: Collection[Address], node_ports: range) -> None:
        """Make the table say so; zeros where a family has no address. Raises OSError.

        `node_ports` holds all that frontends have. Where it comes late, XDP leaves them to tc.
        """
        own = {family(address): bytes(address) for address in primary}
        v4, v6 = (own.get(one, bytes(16)) for one in (Family.IPV4, Family.IPV6))
        with self._lock:
            self._node = Node(
                self._netns, v4, v6, node_ports.start, node_ports.stop - 1,
                bytes(16), bytes(16), 0, 0,
            )  # fmt: skip
        self.mend()

    def reach(self, tunnels: Mapping[Family, Tunnel]) -> None:
        """Make the table say by which tunnels other nodes' pods are reached. Raises OSError."""
        with self._lock:
            self._tunnels = dict(tunnels)
        self.mend()

    def mend(self) -> bool:
        """See to it that the table says what it was last told; False: it already did."""
        with self._lock:
            wanted = self._wanted()
            if not wanted or self._table.read(0) == wanted:
                return False
            self._table.write(0, wanted)
            return True

    def differs(self) -> bool:
        """Does the table say something else than it was last told?"""
        with self._lock:
            wanted = self._wanted()
            return bool(wanted) and self._table.read(0) != wanted

    def _wanted(self) -> bytes:
        """Empty before the first `update`."""
        if self._node is None:
            return b""
        v4, v6 = (self._tunnels.get(one) for one in (Family.IPV4, Family.IPV6))
        return msgspec.structs.replace(
            self._node,
            tunnel_v4=v4.address if v4 else bytes(16),
            tunnel_v6=v6.address if v6 else bytes(16),
            device_v4=v4.number if v4 else 0,
            device_v6=v6.number if v6 else 0,
        ).pack()
