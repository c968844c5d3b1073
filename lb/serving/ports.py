"""All of the agent's HTTP ports together: which are asked for, which could not be had."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from lb.address import Family
from lb.config import Settings
from lb.controller import Controller
from lb.serving import checks, health
from lb.serving.answer import Answer, Place, asked_for
from lb.serving.listeners import RETRY_SECONDS, Listeners

log = logging.getLogger("tidegate.serving")

HEALTHZ, METRICS = "healthz", "metrics"


class Ports:
    """`metrics` answers on the metrics port; None: there is none. To be started before the loop."""

    def __init__(
        self, settings: Settings, controller: Controller, metrics: Answer | None = None
    ) -> None:
        self._settings, self._controller = settings, controller
        self._progress = controller.progress
        self.asked: Counter[tuple[str, int]] = Counter()
        """Answers of the health port by path and code."""
        self._listeners = Listeners(self._failed)
        self._metrics = metrics
        self._checks = checks.Checks(
            controller.store, settings.node_name, self._listeners, self._hosts, self._is_healthy
        )

    def start(self) -> None:
        """Serve, from one thread."""
        settings = self._settings
        if settings.healthz is not None:
            answer = health.health_port(
                self._progress.health, self._eligible, time.time, self._count
            )
            self._listeners.want(HEALTHZ, {asked_for(*settings.healthz): answer})
        if settings.metrics is not None and self._metrics is not None:
            self._listeners.want(METRICS, {asked_for(*settings.metrics): self._metrics})
        with self._controller.lock:
            self._controller.followers.append(self._checks.follow)
        self._listeners.start()

    def stop(self) -> None:
        """Close all ports."""
        self._listeners.stop()

    def features(self) -> dict[str, Any]:
        """How each fares, as `status` shows it."""
        settings = self._settings
        shown: dict[str, Any] = {}
        for name, at in ((HEALTHZ, settings.healthz), (METRICS, settings.metrics)):
            where = {} if at is None else {"at": str(Place(*at))}
            shown[name] = self._feature(name, off=at is None) | where
        shown[checks.GROUP] = self._feature(checks.GROUP, off=False)
        shown[checks.GROUP]["services"] = len(self._checks.ports)
        return shown

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
        owner = self._checks.owner(place)
        what = f"health check of {owner}" if owner is not None else "health or metrics"
        log.warning("%s cannot be had for %s: %s", place, what, error)

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
