r"""A node without neighbours: the packet programs of `lb.c` and `pod.c`, run on single packets.

The tables are filled by the product's own planner and reconciler. Devices, addresses, routes
and neighbours are those of a network namespace that only a descriptor knows, so that nothing
of it can be left behind. Packets go nowhere: a test run only answers what would become of one.

    clients --- router 192.0.2.254 --- [outside: 192.0.2.1] this node n1 [pods: 10.244.1.0/24]
                                   \-- n2 192.0.2.2, pods 10.244.2.0/24
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bpf import libbpf
from bpf.layout import Allowance, Device, DeviceFlag, Flow, FlowState, Node, Reason, Row
from bpf.maps import KernelArray, totals
from bpf.netns import cookie, entered
from bpf.pins import Pins
from bpf.texts import LB, LB_XDP, POD, XDP
from lb.address import Address, parse, parse_prefix
from lb.config import Settings
from lb.here import Addresses, Cidrs
from lb.model import ServiceName
from lb.placing import Placed
from lb.plan import Here, plan
from lb.reconcile import Reconciler
from lb.show import direct_flows
from lb.tables import SIZES, Tables, in_kernel
from lb.xdp import Xdp
from tests.bed.agent import PROGRAMS
from tests.bed.process import run
from tests.own import own_folder
from tests.packet.given import Given

_CLONE_NEWNET = 0x40000000
ROUTER_MAC, NODE_MAC = "02:00:00:00:00:fe", "02:00:00:00:00:01"
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
PEER = {4: "192.0.2.2", 6: "2001:db8::2"}
HERE = Here("n1", "a", (parse(NODE[4]), parse(NODE[6])))


class Small(NamedTuple):
    """A backend and a client to which no packet longer than 1,400 octets gets."""

    backend: str
    client: str


SMALL = {
    False: Small("10.244.3.5", "198.51.100.70"),
    True: Small("fd00:10:244:3::5", "2001:db8:51:1::70"),
}
"""By whether the family is IPv6."""

_WIRING = f"""
link set lo up
link add outside address {NODE_MAC} type veth peer router
link add pods type veth peer pod
link set outside up
link set router up
link set pods up
link set pod up
addr add {NODE[4]}/24 dev outside
addr add {NODE[6]}/64 dev outside nodad
addr add 10.244.1.1/24 dev pods
addr add fd00:10:244:1::1/64 dev pods nodad
route add default via 192.0.2.254
route add default via 2001:db8::fe
route add 10.244.2.0/24 via 192.0.2.2
route add fd00:10:244:2::/64 via 2001:db8::2
route add 10.244.3.0/24 via 192.0.2.2 mtu lock 1400
route add fd00:10:244:3::/64 via 2001:db8::2 mtu lock 1400
route add 198.51.100.64/26 via 192.0.2.254 mtu lock 1400
route add 2001:db8:51:1::/64 via 2001:db8::fe mtu lock 1400
route add unreachable 10.244.9.0/24
route add unreachable fd00:10:244:9::/64
neigh add 192.0.2.254 dev outside lladdr {ROUTER_MAC}
neigh add 2001:db8::fe dev outside lladdr {ROUTER_MAC}
neigh add 192.0.2.2 dev outside lladdr 02:00:00:00:00:02
neigh add 2001:db8::2 dev outside lladdr 02:00:00:00:00:02
"""
_SETTINGS = """
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ethtool -K router gro on > /dev/null
"""

RANGES = ("10.97.0.0/16", "fd00:10:97::/112")
"""ServiceCIDRs; services' own addresses are in neither."""
PODS = ("10.245.0.0/16", "fd00:10:245::/48")
"""Where pods of this cluster are known to be; no client of most rows is one."""
_AGENT = Settings(node_name=HERE.name, cgroup=Path(), bpffs=Path(), api_socket=Path())


def _new_namespace() -> int:
    """A descriptor of a network namespace that goes when it is closed. Raises OSError."""

    def unshared() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(unshared).result()


class Bench:
    """The programs, their tables and their namespace. `folder` is an empty one on a bpffs.

    `defines` are constants of the programs besides their own.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int] = SIZES, **defines: str) -> None:
        self._pins = Pins(folder, PROGRAMS)
        self._namespace = _new_namespace()
        self._path = Path(f"/proc/{os.getpid()}/fd/{self._namespace}")
        self._enter("ip", "-batch", "-", stdin=_WIRING)
        self._enter("sh", "-e", stdin=_SETTINGS)
        self._pins.make(sizes)
        building = self._pins.compile((LB, POD, XDP), {"HAVE_SET_RETVAL": "0"} | defines)
        building.finish()
        self._programs = {
            one.name: libbpf.open_pin(str(folder / one.name))
            for text, folder in building.folders.items()
            for one in text.programs
        }
        self._flows = self._pins.open_array("flows")
        self._dsr_flows = self._pins.open_array("dsr_flows")
        self._hops = self._pins.open_array("hops")
        self._affinity = self._pins.open_hash("affinity")
        self._fragments = self._pins.open_hash("fragments")
        self._allowances = libbpf.open_pin(str(self._pins.find_map("allowances")))
        self._reconciler = Reconciler(in_kernel(self._pins), guard=lambda: None)
        self._now = 0.0
        with entered(self._path):
            self._device = socket.if_nametoindex("outside")
            self._netns = cookie()
        self.reach()
        self._addresses = Addresses(self._pins.open_hash("addresses"), _AGENT)
        peers = [parse(address) for address in PEER.values()]
        self._addresses.update(HERE.addresses, HERE.addresses, peers)
        Cidrs(self._pins.open_hash("cidrs")).update(
            [*map(parse_prefix, RANGES)], [*map(parse_prefix, PODS)]
        )
        with entered(self._path):
            self._devices = self._pins.open_array("devices")
            folder = building.folders[XDP]
            self._xdp = Xdp("native", folder, self._pins.links, self._devices)
            self._xdp.follow(["outside"])

    def reach(self, *tunnel: Address) -> None:
        """Other nodes' pods are behind a tunnel with these addresses, if any: the device itself."""
        through = [self._device if tunnel else 0] * 2
        none = (bytes(16), bytes(16))
        node = Node(self._netns, *HERE.addresses, 80, 80, *(tunnel or none), *through)
        self._pins.open_array("node").write(0, node.pack())

    @property
    def pins(self) -> Pins:
        """Where the tables are."""
        return self._pins

    @property
    def namespace(self) -> Path:
        """Where the device is."""
        return self._path

    @property
    def device(self) -> int:
        """The index of the device where outside traffic enters."""
        return self._device

    @contextmanager
    def on_a_wire(self, *, returns: bool = False) -> Iterator[None]:
        """The device counts as one whose packets come with whole checksums.

        `returns`: also as one whose driver sends back at once what came, by XDP_TX.
        """
        before = Device.unpack(self._devices.read(self._device))
        flags = before.flags & ~DeviceFlag.VIRTUAL | (DeviceFlag.RETURNS if returns else 0)
        try:
            self._devices.write(self._device, Device(before.mac, flags).pack())
            yield
        finally:
            self._devices.write(self._device, before.pack())

    def program(self, name: str) -> int:
        """The descriptor of a program."""
        return self._programs[name]

    def close(self) -> None:
        """The namespace goes; what is pinned is the folder's owner's."""
        for program in self._programs.values():
            libbpf.close(program)
        libbpf.close(self._allowances)
        os.close(self._namespace)

    def _enter(self, *argv: str, stdin: str) -> None:
        run(["nsenter", f"--net={self._path}", *argv], stdin=stdin)

    def give(self, *given: Given) -> None:
        """These services and no others, no flows, no memories."""
        plans = {one.name: plan(one, slices, HERE) for one, slices in given}
        self.forget()
        self.change(*given, gone=self._reconciler.known_services() - plans.keys())

    def change(self, *given: Given, gone: Iterable[ServiceName] = ()) -> None:
        """These services are as given from now on; flows and memories stay."""
        self._now += 10  # ids that were released have rested
        plans = {one.name: plan(one, slices, HERE) for one, slices in given}
        self._reconciler.step({**dict.fromkeys(gone, ()), **plans}, self._now)
        self._addresses.serve(
            {**dict.fromkeys(gone, ()), **{one.name: one.cluster_ips.values() for one, _ in given}}
        )
        assert not self._reconciler.failing

    def forget(self) -> None:
        """No flow and no client is remembered, no way to a backend, and no answer given."""
        for table in (self._dsr_flows, self._hops):
            table.write(0, bytes(table.capacity * table.size))
        self._flows.write(0, bytes(self._flows.capacity * self._flows.size))
        self._affinity.remove([key for key, _ in self._affinity.items()])
        self._fragments.remove([key for key, _ in self._fragments.items()])
        self._allow(0)

    def exhaust_answers(self) -> None:
        """This node has answered as much as it may, for a second to come."""
        self._allow(time.monotonic_ns() + 2 * 10**9)

    def _allow(self, time_of_next: int) -> None:
        value = Allowance(time_of_next).pack() * libbpf.cpus()
        libbpf.update(self._allowances, bytes(4), value)

    def run(self, program: str, packet: bytes) -> libbpf.Ran:
        """What the program does with an Ethernet frame on the device where outside traffic is."""
        (ran,) = self.run_all(program, [packet])
        return ran

    def run_all(self, program: str, packets: Iterable[bytes]) -> list[libbpf.Ran]:
        """The same for many frames, one after the other."""
        descriptor = self._programs[program]
        runs = libbpf.test_run_xdp if program == LB_XDP.name else libbpf.test_run
        with entered(self._path):
            return [runs(descriptor, one, device=self._device) for one in packets]

    def counted(self) -> dict[Reason, int]:
        """How often each reason was met, those at 0 left out."""
        path = self._pins.find_map("reasons")
        assert path is not None
        return {Reason(n): count for n, count in enumerate(totals(path)) if count}

    @property
    def tables(self) -> Tables:
        """Those that the control plane writes."""
        return self._reconciler.tables

    @property
    def table_of_flows(self) -> KernelArray:
        """Rows of flows."""
        return self._flows

    @property
    def table_of_direct_flows(self) -> KernelArray:
        """Rows of connections whose answers do not come by."""
        return self._dsr_flows

    def placed(self) -> list[Placed]:
        """Where the services stand that have backends."""
        return [one for one in self._reconciler.units.values() if one.backends]

    def generation(self, backend: int) -> int:
        """Of a backend's id."""
        return self._reconciler.placer.generations[backend]

    def direct_flows(self) -> list[dict[str, Any]]:
        """What `show flows` says of connections whose answers do not come by."""
        return direct_flows(self._dsr_flows, self._reconciler.tables, self._addresses.table)

    def flows(self) -> list[Flow]:
        """All that are remembered."""
        size = self._flows.size
        table = self._flows.read(0, self._flows.capacity)
        found = []
        for start in range(0, len(table), size):
            row = table[start : start + Row.SIZE]
            if any(row):
                flow = Row.unpack(row).flow
                found += [
                    Flow.unpack(flow[i : i + Flow.SIZE]) for i in range(0, len(flow), Flow.SIZE)
                ]
        return [flow for flow in found if flow.state != FlowState.FREE]


@contextmanager
def standing(sizes: Mapping[str, int] = SIZES, **defines: str) -> Iterator[Bench]:
    """A bench in a folder of its own on the bpffs; both go at the end. See `Bench`."""
    with own_folder("packet") as folder:
        made = Bench(folder, sizes, **defines)
        try:
            yield made
        finally:
            made.close()
