"""Keeps the limits of this node's pods in force: one thread, which looks at all of them each time.

A node has some hundred pods, so nothing here is incremental.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from bandwidth.book import Book
from bandwidth.plan import Plan, Pod, plan
from bpf import netlink, qdisc, tc
from bpf.layout import LimitState
from bpf.module import CompileError
from bpf.pins import Pins
from bpf.texts import EDT
from lb.config import Settings
from lb.devices import choose
from lb.errors import KernelRefused
from lb.limits import measure, places, show
from lb.limits.bbr import CONSTANTS, Bbr
from lb.limits.pods import Pods
from lb.sources import Inbox
from lb.tables import Fill, room

log = logging.getLogger("tidegate.bandwidth")

LOOK_SECONDS, LOOKS = 5.0, 12
"""Between looks at what limits do; at every twelfth, at what somebody may have taken off, too."""
NO_FQ = "no fq in this kernel (sch_fq): limits are not enforced"


class Bandwidth:
    """Calls `told` when what the status shows has changed.

    Raises KernelRefused where limits are demanded and cannot be had.
    """

    def __init__(
        self, settings: Settings, pins: Pins, *, told: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._pins = settings, pins
        self._text = EDT[settings.bandwidth_scope]
        self.programs = pins.place(self._text, CONSTANTS)
        self.bbr = Bbr(settings, pins, told)
        self.folders = (self.programs, self.bbr.programs)
        """Where the programs lie, once they are needed."""
        self._has_fq = settings.bandwidth != "off" and qdisc.has_fq()
        if settings.bandwidth == "on" and not self._has_fq:
            raise KernelRefused(f"--bandwidth on: {NO_FQ.partition(':')[0]}; take auto or off")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pods = Pods(settings, self._wake.set)
        self._default: Sequence[str] = ()
        self._tables = show.tables(pins)
        self._book = Book(self._tables)
        self._places = places.Places()
        self._built = self._is_clean = self._is_adopted = False
        self._faults: tuple[str, ...] = ()
        self._gauge = measure.Gauge()
        self._loose = ""
        self._known: list[Pod] = []
        self._complained: set[str] = set()
        self._told = told

    # --- what others call, from any thread -------------------------------------------------

    def beside(self, inbox: Inbox) -> Inbox:
        """The same inbox, with the pods noted on the way."""
        return self._pods.beside(inbox)

    def follow(self, default: Sequence[str]) -> None:
        """Devices, routes or addresses changed; `default` are those with a default route."""
        self._default = default
        self._wake.set()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._run, name="bandwidth", daemon=True).start()

    def feature(self) -> dict[str, Any]:
        """The entry in `status`."""
        if self._settings.bandwidth == "off":
            return {"state": "off", "reason": "--bandwidth off"}
        with self._lock:
            held, faults = dict(self._book.held), self._faults
            devices = sorted(self._places.leaving)
        if not self._has_fq:
            return {"state": "off", "reason": NO_FQ, "limits": len(held)}
        if not self._pods.is_listed:
            reason = "pods of this node cannot be read yet: may the agent list and watch them?"
            return {"state": "off", "reason": reason, "limits": len(held)}
        answer: dict[str, Any] = {
            "state": "degraded" if faults else "on",
            "limits": len(held),
            "enforced": sum(one.state is LimitState.ENFORCED for one in held.values()),
            "devices": devices,
        }
        return answer | ({"reason": "; ".join(faults)} if faults else {})

    def fills(self) -> list[Fill]:
        """How full its tables are."""
        (limits, pods), tables = self._book.used, self._tables
        return [
            Fill("limits", limits, room("limits", tables.limits.capacity)),
            Fill("pods", pods, tables.pods.capacity),
        ]

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        self._book.adopt()
        self._is_adopted = True
        self.bbr.put()
        if self._settings.bandwidth == "off":
            self._book.apply({}, {})
            try:
                places.put(places.Places(), self.programs)
            except (OSError, tc.NetlinkError) as error:
                self._tell((f"{error}",))
            return
        looked = 0
        while True:
            try:
                self._step() if looked % LOOKS == 0 else self._look()
            except (OSError, tc.NetlinkError, CompileError) as error:
                self._tell((f"{error}",))
            # Without a limit there is nothing to look after.
            woken = self._wake.wait(LOOK_SECONDS if self._book.held or self._faults else None)
            self._wake.clear()
            looked = 0 if woken else looked + 1

    def _look(self) -> None:
        """Measure, and look for cgroups; what is news is taken in."""
        before = self._loose
        self._measure()
        if self._loose != before or self._pods.now() != self._known:
            self._step()

    def _measure(self) -> None:
        if self._has_fq and self._book.held:
            samples = show.samples(self._book, self._tables)
            said = self._gauge.loose(samples, places.held_back(self._places))
            self._loose = said if said is not None else self._loose

    def _step(self) -> None:
        """All of it: which limits there should be, where, and whether they are in force."""
        if not self._pods.is_listed:
            return
        pods = self._known = self._pods.now()
        wanted = plan(pods, {owner: held.bits for owner, held in self._book.held.items()})
        self._complain(wanted)
        ways = self._ways(pods, wanted)
        here, errors = self._put(pods, wanted, ways)
        faults = dict(errors) | ({"measured": self._loose} if self._loose else {})
        states = {}
        for owner, one in wanted.limits.items():
            devices = {name for address in one.addresses for name in ways.get(address, ())}
            state = places.state(one, owner.direction, devices, here, errors)
            if state is LimitState.ENFORCED and self._loose:
                state = LimitState.NOT_HELD
            states[owner] = state if self._has_fq or one.fault else LimitState.NO_FQ
        with self._lock:
            changed = self._book.apply(wanted.limits, states) or self._places != here
            self._places = here
            if self._book.full:
                names = ", ".join(str(one) for one in sorted(self._book.full))
                faults["full"] = f"no room for {names}: raise --max-limits"
        self._tell(tuple(faults.values()), changed=changed)

    def _complain(self, wanted: Plan) -> None:
        """Once for each value that does not parse; the status lists them as refused."""
        lines = {
            f"Pod {owner.namespace}/{owner.pod}: {one.malformed}; {one.bits} bit/s stay in force"
            for owner, one in wanted.limits.items()
            if one.malformed
        }
        lines |= {
            f"Pod {owner.namespace}/{owner.pod}: {text}; it has no limit"
            for owner, text in wanted.unlimited.items()
        }
        for line in sorted(lines - self._complained):
            log.warning("%s", line)
        self._complained = lines

    def _ways(self, pods: Sequence[Pod], wanted: Plan) -> dict[bytes, set[str]]:
        """The devices that lead to the pods that matter; of all pods if any may be sent to."""
        if not self._has_fq or not wanted.limits:
            return {}
        limited = {(owner.namespace, owner.pod) for owner in wanted.limits}
        every = self._settings.bandwidth_scope == "all"
        return netlink.devices_to(
            address
            for pod in pods
            if not pod.is_host_network and (every or (pod.namespace, pod.name) in limited)
            for address in pod.addresses
        )

    def _put(
        self, pods: list[Pod], wanted: Plan, ways: dict[bytes, set[str]]
    ) -> tuple[places.Places, dict[str, str]]:
        """The places in use now, and what is wrong with some devices."""
        if not self._has_fq or not wanted.limits:
            nowhere = places.Places()
            # What an agent before left goes once; then nothing here costs a node without limits.
            errors = {} if self._is_clean else places.put(nowhere, self.programs)
            self._is_clean = not errors
            return nowhere, errors
        self._is_clean = False
        settings = self._settings
        carrying = tc.carriers(tc.LEAVING_HOOK)
        leaving = choose(settings.devices, self._default, tc.devices(), carrying)
        here = places.places(
            pods, wanted.limits, leaving.serve, lambda one: ways.get(one, ()),
            within_node=settings.bandwidth_scope == "all",
        )  # fmt: skip
        if here.paced() | here.naming and not self._built:
            self._pins.compile([self._text], CONSTANTS).finish()
            self._built = True
        errors = places.put(here, self.programs)
        if here.naming:
            errors |= {name: f"{name} is missing" for name in leaving.missing}
            if not leaving.serve and not leaving.missing:
                errors[""] = "no device has a default route: name some with --devices"
        return here, errors

    def _tell(self, faults: tuple[str, ...], *, changed: bool = False) -> None:
        """Say once what is new."""
        for line in set(faults) - set(self._faults):
            log.warning("%s", line)
        changed |= faults != self._faults
        self._faults = faults
        if changed:
            log.info("bandwidth: %d limits", len(self._book.held))
            self._told()

    def differences(self) -> list[str]:
        """A line for each program, queue or entry that is not as it should be.

        Raises OSError, NetlinkError.
        """
        with self._lock:
            lines = self._book.differences() if self._is_adopted else []
        return [*lines, *self._missing()]

    def _missing(self) -> list[str]:
        with self._lock:
            here, built = self._places, self._built
        return places.missing(here, self.programs) if built else []

    def mend(self) -> list[str]:
        """Put back what somebody took off or altered; a line for each. Raises likewise."""
        with self._lock:
            lines = list(self._book.mend()) if self._is_adopted else []
        missing = self._missing()
        if missing:
            self._wake.set()
        return [*lines, *(f"{line}; it is put on again" for line in missing)]

    def rows(self) -> list[dict[str, Any]]:
        """Those of `show limits`. Raises OSError."""
        return show.limits(self._tables)
