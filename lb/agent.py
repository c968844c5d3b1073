"""The agent: puts the parts together, starts them in order, and leaves the data path behind.

The only module that knows all the others. SIGTERM and SIGINT end it; what it attached goes on.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Collection
from typing import Any

from bpf import libbpf, netlink, netns
from bpf.link import GUARD, SOCKET_HOOKS, attach, is_attached
from bpf.tails import any_tails
from bpf.texts import SOCK, XDP
from lb import tunnels
from lb.address import Address, Family, family, show
from lb.api import Server
from lb.builds import of_pods, of_uplinks
from lb.config import Settings
from lb.controller import Controller
from lb.devices import Devices
from lb.errors import KernelRefused, TidegateError
from lb.events import Recorder, of_node
from lb.ground import ENDING, Ground
from lb.healing import Healer
from lb.here import Addresses, Cidrs, Identity
from lb.host import feature, set_conntrack
from lb.letterbox import Letterbox
from lb.limits.manager import Bandwidth
from lb.neighbours import Neighbours
from lb.pod_devices import PodDevices
from lb.ready import announce
from lb.reaper import Reaper, Work
from lb.reconcile import Reconciler
from lb.repairs import Parts, checks, differences
from lb.reserved import reserve
from lb.serving.answer import Answer
from lb.serving.pages import metrics_port
from lb.serving.ports import Ports
from lb.show import counted
from lb.sources import Api
from lb.status import status
from lb.tables import in_kernel
from lb.telling import tell
from lb.tracked import Tracked
from lb.xdp import Xdp

log = logging.getLogger("tidegate")

FAREWELL_SECONDS = 2.0
"""For the last events to reach the API server, while the agent ends."""
_LOOKS = 5
"""At the features, for one answer: who waits for a revision must not miss what came with it."""
LOOK_AROUND_SECONDS = 60.0
"""The net under the watch for changed addresses."""
GATHER_SECONDS, LONGEST_REST, REST = 0.25, 1.0, 4.0
"""After a look at devices: what changes meanwhile is seen by the next one. A rest takes `REST`
times as long as the look, within these: some nodes have very many routes."""


class Agent:
    """One node's agent. Raises BadInput, KernelRefused when it cannot start."""

    def __init__(
        self,
        settings: Settings,
        ground: Ground,
        letterbox: Letterbox,
        stop: threading.Event,
        *,
        api: Api | None = None,
    ) -> None:
        self._settings, self._ground = settings, ground
        self._stop = stop
        self._api = api
        self._events = Recorder(None if api is None else api.send, os.uname().nodename)
        self._failed: TidegateError | None = None
        self._handover: Any = None
        self._pins = ground.pins
        self._guard_waits = self._attached = False
        self._conntrack = feature(settings.conntrack, set_conntrack(settings.conntrack))
        if ground.pins_note:
            log.warning("%s", ground.pins_note)
        note = reserve(settings.bpffs)
        if note:
            log.warning("%s", note)
        programs, detection = ground.programs, settings.detection
        self._devices = Devices(settings.devices, of_uplinks(programs, detection), note)
        self._pod_devices = PodDevices(settings.pod_devices, of_pods(programs, detection))
        self._xdp = Xdp(
            settings.xdp,
            ground.programs.get(XDP),
            self._pins.links,
            self._pins.open_array("devices"),
        )
        tables = in_kernel(self._pins)
        self._neighbours = Neighbours(tables.backends)
        reconciler = Reconciler(
            tables,
            guard=self._attach_guard,
            ring_slots=settings.ring_slots,
            backend_slots=settings.backend_slots,
        )
        for fault in reconciler.adopt():
            log.warning("found in the maps: %s", fault)
        # Sockets remember backends by id and generation, also over tables that start anew.
        reconciler.placer.begin_generations(int(time.time()) & 0x7FFFFFFF)
        path = self._pins.find_map("connected")
        addresses = Addresses(self._pins.open_hash("addresses"), settings)
        self._identity = identity = Identity(self._pins.open_array("node"), netns.cookie())
        identity.reach(tunnels.present(netlink.addresses()))
        identity.update(settings.node_ips, reconciler.frontends.node_ports)
        cidrs = Cidrs(self._pins.open_hash("cidrs"))
        self.controller = Controller(
            settings,
            reconciler,
            addresses,
            self._reap,
            identify=identity.update,
            allocate=cidrs.update,
        )
        self._reaper = Reaper(settings.cgroup, libbpf.open_pin(str(path)), self.controller.serves)
        self._ports = Ports(settings, self.controller, self.fail, self._events.record)
        self.controller.followers += [tell, self._events.follow]
        self._bandwidth = Bandwidth(settings, self._pins, told=self.controller.note)
        letterbox.lead_to(self._bandwidth.beside(self.controller))
        self._parts = Parts(
            self._pins, ground.programs[SOCK], self._devices, self._xdp, identity, cidrs,
            self._pod_devices, self._neighbours, self._bandwidth,
            {text: folder for text, folder in programs.items() if any_tails(text)},
        )  # fmt: skip
        self._healer = Healer(
            checks(settings, self.controller, self._parts),
            settings.repair_seconds,
            told=self.controller.note,
        )

    def run(self) -> None:
        """Serve until told to stop. Raises KernelRefused if it cannot begin to."""
        server = self._open_door()
        # Before the first look: what changes after it is not missed.
        self._watch = netlink.Watch()
        self._look_at_devices()
        server.start()
        self._reaper.start()
        self._neighbours.start()
        self._ports.start(self._metrics())
        self._events.record(of_node(self._settings.node_name, "Starting"))
        self._serve_page()
        for target, name in (
            (self._watch_devices, "devices"),
            (self._begin, "begin"),
            (self._await_end, "end"),
        ):
            threading.Thread(target=target, name=name, daemon=True).start()
        try:
            self.controller.run(self._stop)
        finally:
            self._ports.stop()
            server.shutdown()
            server.server_close()
            self._settings.api_socket.unlink(missing_ok=True)
            self._events.flush(FAREWELL_SECONDS)
        if self._failed is not None:
            raise self._failed
        log.info("stopped; the data path stays")

    def fail(self, error: TidegateError) -> None:
        """End with this error. For any thread."""
        log.critical("%s", error)
        self._failed = error
        self._end()

    def _open_door(self) -> Server:
        path = self._settings.api_socket
        try:
            return Server(
                path,
                {"/status": self._status, "/verify": self._verify, "/pods": self._pods_by_address},
            )
        except OSError as error:
            raise KernelRefused(f"--api-socket {path}: {error.strerror or error}") from error

    def _serve_page(self) -> None:
        if self._settings.page is not None:
            from lb.page.facts import Facts  # noqa: PLC0415 - who switched it off pays not
            from lb.page.server import serve  # noqa: PLC0415

            pins, kept = self._settings.bpffs, self._settings.program_cache
            facts = Facts(pins, self._settings.api_socket, lambda: self._status({}), kept)
            serve(self._settings.page, facts)

    def _metrics(self) -> Answer | None:
        if self._settings.metrics is None:
            return None
        # Who switched it off does not pay for it.
        from lb.limits.metrics import LimitsCollector  # noqa: PLC0415
        from lb.metrics import TidegateCollector, scraper  # noqa: PLC0415
        from lb.see.fills import Fills  # noqa: PLC0415
        from lb.see.metrics import TrafficCollector  # noqa: PLC0415
        from lb.serving.series import KubeProxyCollector  # noqa: PLC0415

        drops = functools.partial(counted, self._pins)
        flows, listening = self._pins.open_array("flows"), self._pins.open_array("listening")
        limit = self._settings.metrics_series
        traffic = TrafficCollector(self.controller, flows, listening, limit=limit)
        scrape = scraper(
            traffic,
            TidegateCollector(
                self.controller,
                drops,
                lambda: self._reaper.ended,
                lambda: self._healer.repairs,
                Fills(self._pins, self._parts.cidrs, self._bandwidth, traffic),
            ),
            KubeProxyCollector(self.controller, self._ports.asked, self._reaper.rounds, self._api),
            LimitsCollector(self._bandwidth.rows),
        )
        return metrics_port(scrape, self._settings.proxy_mode, self._settings.configuration)

    def _attach(self) -> None:
        settings, programs = self._settings, self._ground.programs
        wanted = [*SOCKET_HOOKS]
        if self._guard_waits or (self._pins.links / GUARD.name).exists():
            wanted.insert(0, GUARD)
        for hook in wanted:
            try:
                attach(hook, programs[SOCK], self._pins.links, settings.cgroup)
            except OSError as error:
                raise KernelRefused(f"attach {hook.name} to {settings.cgroup}: {error}") from error
        self._attached = True

    def _sweep(self) -> None:
        """What an agent before left goes once none of it is in force: programs of devices, too.

        Until then they need their tables of tail calls, which the kernel empties with the pin.
        """
        used = [*self._ground.programs.values(), *self._bandwidth.folders]
        try:
            self._pins.sweep(used, self._settings.sizes)
        except OSError as error:
            log.warning("could not remove what is no longer used: %s", error)

    def _attach_guard(self) -> None:
        """Called before anything is to be dropped in silence. Raises OSError."""
        if self._pins.made_anew and not self._attached:
            self._guard_waits = True  # nobody looks into these tables before all is attached
            return
        try:
            self._ground.await_programs()
        except KernelRefused as error:
            raise OSError(str(error)) from error
        programs = self._ground.programs[SOCK]
        attach(GUARD, programs, self._pins.links, self._settings.cgroup)

    def _look_at_devices(self) -> None:
        addresses = netlink.addresses()
        held = [(Address(one.address), one.device) for one in addresses]
        default = netlink.default_devices()
        through = tunnels.present(addresses)
        self._identity.reach(through)
        self._devices.reach(one.device for one in through.values())
        self.controller.devices(held, default)
        self._bandwidth.follow(default)
        if self._follow_devices(default):
            self.controller.note()
        self._neighbours.stir()

    def _follow_devices(self, default: list[str]) -> bool:
        changed = self._devices.follow(default)
        changed |= self._xdp.follow(self._devices.for_xdp)
        return self._pod_devices.follow({*default, *self._devices.serving}) or changed

    def _watch_devices(self) -> None:
        """Follows the node's addresses; what netlink refuses is tried again."""
        pause = LOOK_AROUND_SECONDS
        while not self._stop.is_set():
            self._watch.wait(pause)
            began = time.monotonic()
            try:
                self._look_at_devices()
                pause = LOOK_AROUND_SECONDS
            except (OSError, netlink.NetlinkError) as error:
                log.warning("could not read this node's addresses: %s", error)
                pause = 1.0
            rest = REST * (time.monotonic() - began)
            self._stop.wait(min(max(rest, GATHER_SECONDS), LONGEST_REST))

    def _begin(self) -> None:
        """Put the programs in force, and tell the service manager once all is applied.

        They take over at once if those before them look into the same tables; else only when the
        first full state is in the new ones.
        """
        try:
            self._ground.await_programs()
            if self._pins.made_anew:
                self._await_synced()
            with self.controller.lock:  # no unit meanwhile finds that it needs the guard
                self._attach()
            tracked = Tracked(self._pins.open_hash("tracked"), is_first=self._pins.made_anew)
            with tracked.learning():
                self._start_devices()
        except KernelRefused as error:
            self.fail(error)
            return
        self._await_synced()
        self._bandwidth.start()
        self._sweep()
        self._reaper.give(Work(everywhere=True))
        self._healer.start()
        tracked.follow(self._stop)
        if self._settings.takes_over:
            from lb.handover import Handover  # noqa: PLC0415 - loads much of netlink

            told = self.controller.note
            self._handover = Handover(self.controller.answers, self._stop, told)
            self._handover.start()
        announce()

    def _await_synced(self) -> None:
        with self.controller.lock:
            self.controller.lock.wait_for(lambda: self.controller.is_synced)

    def _start_devices(self) -> None:
        try:
            self._devices.start()
            self._xdp.follow(self._devices.for_xdp)
            self._pod_devices.start({*netlink.default_devices(), *self._devices.serving})
        except (OSError, netlink.NetlinkError) as error:
            raise KernelRefused(f"devices: {error}") from error
        self.controller.note()

    def _reap(self, work: Work) -> None:
        self._reaper.give(work)

    def _end(self) -> None:
        self._stop.set()
        self.controller.wake()

    def _await_end(self) -> None:
        """A handler would have to wait for the main thread, which may sleep on a lock by then."""
        signal.sigwait(ENDING)
        self._end()

    def _status(self, query: dict[str, str]) -> dict[str, Any]:
        controller = self.controller
        with controller.lock:
            if "after" in query:
                after = int(query["after"])
                controller.lock.wait_for(lambda: controller.revision > after, timeout=25)
            families = {family(address) for address in controller.here.addresses}
        for _ in range(_LOOKS):
            seen, features = controller.revision, self._features(families)
            if seen == controller.revision:
                break
        with controller.lock:
            features["host-ports"] = controller.host_ports()
            answer = status(controller, self._hooks(), self._reaper.ended, features)
        return answer | {"repairs": dict(self._healer.repairs)}

    def _features(self, families: Collection[Family]) -> dict[str, Any]:
        return {
            "north-south": self._devices.feature(families),
            "pod-devices": self._pod_devices.feature(),
            "xdp": self._xdp.feature(),
            "neighbours": self._neighbours.feature(),
            **self._ports.features(),
            "bandwidth": self._bandwidth.feature(),
            **self._bandwidth.bbr.feature(),
            **self._conntrack,
            "pins": _feature(self._ground.pins_note),
            **({} if self._handover is None else {"take-over": self._handover.feature()}),
        }

    def _hooks(self) -> dict[str, bool]:
        links, cgroup = self._pins.links, self._settings.cgroup
        return {hook.name: is_attached(hook, links, cgroup) for hook in SOCKET_HOOKS}

    def _pods_by_address(self, _: dict[str, str]) -> dict[str, str]:
        with self.controller.lock:
            return {show(address): pod for address, pod in self.controller.store.pods()}

    def _verify(self, _: dict[str, str]) -> dict[str, Any]:
        lines = differences(self.controller, self._parts)
        lines += [f"{name} is detached" for name, there in self._hooks().items() if not there]
        return {"good": not lines, "differences": lines}


def _feature(fault: str) -> dict[str, str]:
    return {"state": "degraded", "reason": fault} if fault else {"state": "on"}
