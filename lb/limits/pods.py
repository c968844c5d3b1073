"""The pods of this node, noted on their way to the controller, which has other uses for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bandwidth.annotations import Direction
from bandwidth.plan import Pod
from lb.config import Settings
from lb.limits import cgroups
from lb.model import ALL_PODS, Change, Key, Kind
from lb.model import Pod as Seen
from lb.sources import Inbox, Report


class Pods:
    """An `Inbox` beside another one; `wake` is called when a pod of this node changed."""

    def __init__(self, settings: Settings, wake: Callable[[], None]) -> None:
        self._node, self._waits = settings.node_name, settings.manifests is None
        self._wanted = settings.bandwidth != "off"
        self._wake = wake
        self._lock = threading.Lock()
        self._pods: dict[Key, Pod] = {}
        self._uids: dict[Key, str] = {}
        self._cgroup = settings.cgroup
        self._inbox: Inbox | None = None
        self.is_listed = False
        """All of them are known: from now on a pod that is not there has no limit."""

    def beside(self, inbox: Inbox) -> Inbox:
        """This one, which tells the other one everything."""
        self._inbox = inbox
        return self

    def now(self) -> list[Pod]:
        """Those of this moment. Of limited pods on the host's network the cgroup is sought."""
        with self._lock:
            pods, uids = dict(self._pods), dict(self._uids)
        sought = {uids[key] for key, pod in pods.items() if pod.is_host_network and pod.asked}
        found = cgroups.find(self._cgroup, sought)
        return [pod._replace(cgroup=found.get(uids[key], 0)) for key, pod in pods.items()]

    def changed(self, changes: Sequence[Change]) -> None:
        """Pods among these are noted."""
        if self._wanted:
            self._note([change for change in changes if change.key.kind is Kind.POD])
        if self._inbox is not None:
            self._inbox.changed(changes)

    def synced(self) -> None:
        """All that is needed to serve is known; an API server's pods may be missing still."""
        if not self._waits:
            self._all_there()
        if self._inbox is not None:
            self._inbox.synced()

    def report(self, report: Report) -> None:
        """For the other one only."""
        if self._inbox is not None:
            self._inbox.report(report)

    def _note(self, changes: list[Change]) -> None:
        with self._lock:
            before = dict(self._pods) if changes else self._pods
            for change in changes:
                if isinstance(change.value, Seen) and change.value.node == self._node:
                    self._pods[change.key] = _pod(change.key, change.value)
                    self._uids[change.key] = change.value.uid
                else:
                    self._pods.pop(change.key, None)
                    self._uids.pop(change.key, None)
            news = before != self._pods
        if ALL_PODS in changes:
            self._all_there()
        elif news:
            self._wake()

    def _all_there(self) -> None:
        self.is_listed = True
        self._wake()


def _pod(key: Key, pod: Seen) -> Pod:
    texts = {Direction.EGRESS: pod.egress, Direction.INGRESS: pod.ingress}
    asked = {direction: text for direction, text in texts.items() if text is not None}
    return Pod(key.namespace, key.name, tuple(pod.addresses), asked, pod.host_network)
