"""All of the agent's HTTP ports together: which are asked for, which could not be had."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lb.address import Family
from lb.config import Listen, Settings
from lb.controller import Controller
from lb.errors import KernelRefused, TidegateError
from lb.events import Event, of_node, of_service
from lb.serving import checks, health
from lb.serving.answer import Answer, Place, asked_for
from lb.serving.listeners import RETRY_SECONDS, Listeners

log = logging.getLogger("tidegate.serving")

HEALTHZ, METRICS = "healthz", "metrics"
FAILED = {HEALTHZ: "FailedToStartProxierHealthcheck", METRICS: "FailedToStartMetricServer"}
FAILED_CHECK = "FailedToStartServiceHealthcheck"
"""kube-proxy's reasons of events."""


class Ports:
    """`metrics` answers on the metrics port; None: there is none. To be started before the loop.

    `fail` ends the agent, where the settings say that it must have its ports.
    """

    def __init__(
        self,
        settings: Settings,
        controller: Controller,
        fail: Callable[[TidegateError], None],
        metrics: Answer | None = None,
        record: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._settings, self._controller = settings, controller
        self._progress = controller.progress
        self.asked: Counter[tuple[str, int]] = Counter()
        """Answers of the health port by path and code."""
        self._listeners = Listeners(self._failed)
        self._fail, self._metrics, self._record = fail, metrics, record
        self._own: dict[Place, str] = {}
        self._checks = checks.Checks(
            controller.store, settings.node_name, self._listeners, self._hosts, self._is_healthy
        )

    def start(self) -> None:
        """Serve, from one thread."""
        answers = {
            HEALTHZ: health.health_port(
                self._progress.health, self._eligible, time.time, self._count
            ),
            METRICS: self._metrics,
        }
        for name, at in self._addresses().items():
            answer = answers[name]
            if at is not None and answer is not None:
                place = asked_for(*at)
                self._own[place] = name
                self._listeners.want(name, {place: answer})
        with self._controller.lock:
            self._controller.followers.append(self._checks.follow)
        self._listeners.start()

    def stop(self) -> None:
        """Close all ports."""
        self._listeners.stop()

    def features(self) -> dict[str, Any]:
        """How each fares, as `status` shows it."""
        shown: dict[str, Any] = {}
        for name, at in self._addresses().items():
            where = {} if at is None else {"at": str(Place(*at))}
            shown[name] = self._feature(name, off=at is None) | where
        shown[checks.GROUP] = self._feature(checks.GROUP, off=False)
        shown[checks.GROUP]["services"] = len(self._checks.ports)
        return shown

    def _addresses(self) -> dict[str, Listen | None]:
        return {HEALTHZ: self._settings.healthz, METRICS: self._settings.metrics}

    def _feature(self, group: str, *, off: bool) -> dict[str, Any]:
        if off:
            return {"state": "off"}
        errors = self._listeners.errors(group)
        if not errors:
            return {"state": "on"}
        texts = [f"{place}: {error}" for place, error in sorted(errors.items())]
        return {
            "state": "degraded",
            "reason": f"{'; '.join(texts)}; tried again every {RETRY_SECONDS:.0f} s",
        }

    def _failed(self, place: Place, error: str) -> None:
        own, node = self._own.get(place), self._settings.node_name
        if own is None:
            owner = self._checks.owner(place)
            text = f"node {node} failed to start healthcheck of {owner} on {place}: {error}"
            log.warning("%s", text)
            if owner is not None:
                self._record(of_service(owner, FAILED_CHECK, "Listen", text))
        elif self._settings.must_listen:
            text = f"--{own}-bind-address {place}: {error}"
            self._record(of_node(node, FAILED[own], text))
            self._fail(KernelRefused(text))
        else:
            log.warning("%s: no %s: %s", place, own, error)

    def _count(self, path: str, code: int) -> None:
        self.asked[path, code] += 1

    def _is_healthy(self) -> bool:
        return self._progress.health().healthy

    def _eligible(self) -> bool:
        """A node that the API server does not know is about to go; manifests need name none."""
        node = self._controller.store.node
        return self._settings.manifests is not None if node is None else not node.leaving

    def _hosts(self) -> dict[Family, tuple[str, ...]]:
        settings = self._settings
        return checks.hosts(
            self._controller.addresses.local,
            setting=settings.nodeport_addresses,
            mode=settings.proxy_mode,
        )
