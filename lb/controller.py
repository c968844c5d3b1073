"""Takes what sources deliver, plans what it touches, and has it applied: one turn at a time.

Nothing is programmed until the first full state is there; what an agent before left keeps
serving meanwhile. While a turn runs, further changes gather, and the next turn takes them all:
no timer delays the first, no flood is applied one by one. All state is behind one lock.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace

from bpf.layout import AddressFlag, FrontendKey, Peer, Scope
from lb import hostports
from lb.address import ANY, Address, Family, Prefix, family, one_of_each, show
from lb.claims import Claim
from lb.config import Settings
from lb.here import Addresses
from lb.local import Mode, local
from lb.model import Change, Kind, Protocol, ServiceName
from lb.plan import Here, Plan
from lb.progress import Progress
from lb.reaper import Place, Work
from lb.reconcile import Outcome, Reconciler
from lb.sources import Report
from lb.store import Store
from lb.turn import Follower, Turn

log = logging.getLogger("tidegate.controller")

PIECE = 500
"""Services of one step while the first full state is applied."""


class Controller:
    """The inbox of all sources, and the loop. Times are seconds of the monotonic clock."""

    def __init__(  # noqa: PLR0913 - what it is put together from
        self,
        settings: Settings,
        reconciler: Reconciler,
        addresses: Addresses,
        reap: Callable[[Work], None],
        *,
        identify: Callable[[Collection[Address], range], None] = lambda *_: None,
        allocate: Callable[[Collection[Prefix], Collection[Prefix]], object] = lambda *_: None,
    ) -> None:
        self.settings = settings
        self.reconciler = reconciler
        self.addresses = addresses
        self.progress = Progress(settings.stale_seconds)
        self.store = Store(
            settings.node_name,
            since=self.progress.started,
            host_ports=settings.host_ports,
            pod_weights=settings.knows_all_pods,
        )
        self.here = Here(
            settings.node_name,
            "",
            one_of_each(settings.node_ips),
            forwarding=settings.forwarding,
            dispatch=settings.dispatch,
            algorithm=settings.algorithm,
        )
        self.pods = local(settings.detection, ())
        """Which packets come from pods, for clients whose sockets are not seen."""
        self.reports: dict[str, Report] = {}
        self.is_synced = False
        self.revision = 0
        """Moves on with every turn that changed anything: objects, maps, or what is wrong."""
        self.writes = 0
        """Units and frontends that were written or removed, since the start."""
        self.error = ""
        """What went wrong with the node itself; empty if nothing."""
        self.lock = threading.Condition()
        """Guards everything here; notified when `revision` moves on."""
        self.followers: list[Follower] = []
        """Told under the lock, after each turn, what it did."""
        self._reap, self._identify, self._allocate = reap, identify, allocate
        self._inbox: list[Change] = []
        self._held: list[tuple[Address, str]] | None = None
        self._known: list[tuple[Address, str]] = []
        self._default_devices: Sequence[str] = ()
        self._first_full = False
        self._spared: set[ServiceName] = set()
        self._news = False
        """Has anything changed that the maps of services do not show?"""
        self._wake = threading.Event()

    # --- the inbox; called by any thread ---------------------------------------------------

    def changed(self, changes: Sequence[Change]) -> None:
        """More changes for the next turn."""
        self.progress.queued()
        with self.lock:
            self._inbox += changes
        self._wake.set()

    def synced(self) -> None:
        """The first full state is in."""
        with self.lock:
            self._first_full = True
        self._wake.set()

    def report(self, report: Report) -> None:
        """How a source fares."""
        with self.lock:
            self._news |= self.reports.get(report.kind) != report
            self.reports[report.kind] = report
        self._wake.set()

    def devices(self, held: list[tuple[Address, str]], default: Sequence[str]) -> None:
        """The addresses of this node with their devices, and the devices with default routes."""
        with self.lock:
            self._held, self._default_devices = held, default
        self._wake.set()

    def note(self) -> None:
        """Something changed that only the status shows."""
        with self.lock:
            self._news = True
        self._wake.set()

    def pending(self) -> dict[Kind, int]:
        """Changes that wait for the next turn, by kind. The caller holds the lock."""
        found = dict.fromkeys(Kind, 0)
        for change in self._inbox:
            found[change.key.kind] += 1
        return found

    # --- the loop --------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop`; `wake` it after setting `stop`."""
        while not stop.is_set():
            self._wake.wait(self._pause())
            self._wake.clear()
            self.turn(time.monotonic())

    def wake(self) -> None:
        """Let the loop look around."""
        self._wake.set()

    def _pause(self) -> float | None:
        with self.lock:
            due = self.reconciler.next_retry() if self.is_synced else None
            pauses = [] if due is None else [max(0.05, due - time.monotonic())]
            pauses += [1.0] if self.error else []
        return min(pauses, default=None)

    def turn(self, now: float) -> None:
        """One round: take what came, plan, apply, tell."""
        with self.lock:
            changes, self._inbox = self._inbox, []
            touched = self.store.apply(changes)
            told = bool(changes)
            changes.clear()  # at a start they are many, and the store has what is in them
            if not self._first_full:
                if self._news:
                    self._move_on()
                return
            self.progress.taken()
            began = time.monotonic()
            anew = touched.node or touched.peers or touched.cidrs or not self.is_synced
            everything = self._look_around(anew=anew)
            before = self.reconciler.troubles()
            first = not self.is_synced
            if first:
                outcome = self._first(now)
            else:
                names = self.store.names() if everything else touched.services.keys()
                outcome = self._apply(names | self._gone_pods() | self.reconciler.due(now), now)
            self.writes += outcome.writes
            told |= self._news or everything or first
            troubles = self.reconciler.troubles()
            if told or outcome.writes or before != troubles:
                self._move_on()
            seconds = time.monotonic() - began
            if not self.error:
                self.progress.applied(
                    set(Family) if everything or first else touched.families,
                    seconds,
                    touched.triggers,
                    full=everything or first,
                    failing={unit.service for unit in self.reconciler.failing},
                )
            done = Turn(
                causes={} if first else touched.services,
                services=self.store.names() if first else touched.services,
                first=first,
                refused=self.store.all_refused() if first else touched.refused,
                failed={unit: error for unit, error in troubles.items() if unit not in before},
                recovered=before.keys() - troubles.keys(),
                writes=outcome.writes,
                seconds=seconds,
            )
            for follower in self.followers:
                follower(done)
        self._after(outcome)

    def _move_on(self) -> None:
        self._news = False
        self.revision += 1
        self.lock.notify_all()

    def _first(self, now: float) -> Outcome:
        """Everything at once, then what nobody asked for goes."""
        wanted, known = self.store.names(), self.reconciler.known_services()
        if self.settings.host_ports and self.settings.manifests is None:
            # An API server lists pods beside what a node needs to serve: those of before stay.
            self._spared = {name for name in known - wanted if hostports.is_pod(name)}
            known -= self._spared
        # In pieces, whose plans need not all be there at once. What is gone goes last: who takes
        # over its frontends does so without a gap.
        order = sorted(wanted)
        pieces = [*[order[i : i + PIECE] for i in range(0, len(order), PIECE)], known - wanted]
        outcome = Outcome(0, [], [])
        for names in pieces:
            one = self._apply(names, now)
            outcome.writes += one.writes
            outcome.lost += one.lost
            outcome.appeared += one.appeared
        self.reconciler.prune(now)
        self._write_addresses(self.addresses.complete)
        self.is_synced = True
        # The objects of now live long: the collector need never walk them.
        gc.freeze()
        return outcome

    def _apply(self, names: Collection[ServiceName], now: float) -> Outcome:
        due = self.reconciler.next_retry()
        if not names and (due is None or due > now):
            return Outcome(0, [], [])
        before = self.reconciler.frontends.node_ports
        outcome = self.reconciler.step({name: self.plans(name) for name in sorted(names)}, now)
        if (ports := self.reconciler.frontends.node_ports) != before:
            self._write_addresses(lambda: self._identify(self.here.addresses, ports))
        self._write_addresses(lambda: self.addresses.serve(self._cluster_ips(names)))
        return outcome

    def host_ports(self) -> dict[str, Any]:
        """The entry in `status`. The caller holds the lock."""
        waits = self.settings.manifests is None and not self.store.has_all_pods
        pods = self.store.exposed_pods()
        return hostports.feature(pods, is_on=self.settings.host_ports, waits=waits)

    def _gone_pods(self) -> set[ServiceName]:
        """Pods of an agent before that are not there any more, once that is known."""
        if not self.store.has_all_pods:
            return set()
        gone, self._spared = self._spared, set()
        return gone

    def _cluster_ips(self, names: Collection[ServiceName]) -> dict[ServiceName, list[Address]]:
        found = {name: self.store.service(name) for name in names}
        return {name: [*one.cluster_ips.values()] if one else [] for name, one in found.items()}

    def _write_addresses(self, write: Callable[[], object]) -> None:
        """What fails is due at each look around, and `error` brings that about."""
        try:
            write()
        except OSError as error:
            self.error = f"addresses: {error}"
            self._news = True

    def plans(self, name: ServiceName) -> tuple[Plan, ...]:
        """What the maps should hold of a service now; nothing if it is not there."""
        return self.store.plans(name, self.here, external_ips=self.settings.external_ips)

    def _look_around(self, *, anew: bool) -> bool:
        """Follow the node's own state; True: every plan may have changed."""
        held, self._held = self._held, None
        if held is None and not anew and not self.error:
            return False
        self._known = held if held is not None else self._known
        node = self.store.node
        zone = node.zone if node else ""
        knows_nodes = self.settings.manifests is not None or self.store.has_all_nodes
        here = replace(self.here, zone=zone, addresses=self._primary(), knows_nodes=knows_nodes)
        before, self.error = self.error, ""
        try:
            addresses = [address for address, _ in self._known]
            self._news |= self.addresses.update(addresses, here.addresses, self.store.peers())
            self._identify(here.addresses, self.reconciler.frontends.node_ports)
            self._follow_pods(node.pod_cidrs if node else ())
            self._allocate(self.store.service_cidrs(), self.pods.prefixes.values())
        except OSError as error:
            self.error = f"addresses: {error}"
        self._news |= self.error != before
        changed = here != self.here
        self._tell_addresses(here)
        self.here = here
        return changed

    def _follow_pods(self, pod_cidrs: Sequence[Prefix]) -> None:
        """A node may get its podCIDRs late, and other ones: kube-proxy ends then, this goes on."""
        pods = local(self.settings.detection, pod_cidrs)
        if pods != self.pods:
            log.info("pods of this node: %s", pods)
        elif self.settings.detection.mode is Mode.NODE_CIDR and not pods.prefixes:
            log.warning("detectLocalMode NodeCIDR: the Node object has no podCIDR yet")
        self.pods = pods

    def _tell_addresses(self, here: Here) -> None:
        """An operator who moves a node sees in the log from when on."""
        if here.addresses == self.here.addresses:
            return
        own = ", ".join(map(show, here.addresses))
        if own:
            log.info("this node's addresses are %s", own)
        else:
            log.warning("this node has no address: set --node-ip, or one in its Node object")

    def _primary(self) -> tuple[Address, ...]:
        """As told; else as the Node object says; else of the devices with a default route.

        kube-proxy's bind address stands in place of what the last two say, in its family.
        """
        if self.settings.node_ips:
            return one_of_each(self.settings.node_ips)
        bind = [] if self.settings.bind_address is None else [self.settings.bind_address]
        if self.store.node is not None and self.store.node.addresses:
            return one_of_each([*bind, *self.store.node.addresses])
        on_default = [a for a, device in self._known if device in self._default_devices]
        return one_of_each([*bind, *[a for a in on_default if not a.startswith(b"\xfe\x80")]])

    def _after(self, outcome: Outcome) -> None:
        """Sockets that the change left behind."""
        lost = {
            (lost.backend.address, lost.backend.port)
            for lost in outcome.lost
            if lost.unit.protocol is Protocol.UDP
        }
        self._reap(Work(frozenset(lost), frozenset(self._places(outcome.appeared))))

    def serves(self, peer: Peer) -> bool:
        """Is the socket's backend still one of the service that it asked for? For any thread.

        By addresses and not by ids, which are others once the tables were made anew.
        """
        claim = self._claim(Protocol.UDP, Address(peer.frontend), peer.frontend_port)
        if claim is None:
            return False
        with self.lock:
            placed = self.reconciler.units.get(claim.unit)
            return placed is not None and (Address(peer.address), peer.port) in placed.backends

    def answers(self, protocol: int, address: bytes, port: int) -> bool:
        """Is that a frontend of a service? For any thread."""
        return self._claim(protocol, Address(address), port) is not None

    def _claim(self, protocol: int, address: Address, port: int) -> Claim | None:
        with self.lock:
            for where, scope in (
                (address, Scope.ADDRESS),
                (address, Scope.LOOPBACK),
                (ANY[family(address)], Scope.NODE),
            ):
                key = FrontendKey(where, port, protocol, scope).pack()
                claim = self.reconciler.frontends.claims.held.get(key)
                if claim is not None:
                    return claim
        return None

    def _places(self, keys: Collection[bytes]) -> set[Place]:
        places: set[Place] = set()
        for key in keys:
            record = FrontendKey.unpack(key)
            if record.scope != Scope.NODE:
                places.add((record.address, record.port))
            else:
                places |= {
                    (address, record.port)
                    for address, flags in self.addresses.local.items()
                    if flags & AddressFlag.NODE_PORT
                }
        return places
