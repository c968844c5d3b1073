"""From a Pod to what its bandwidth limits need of it. Pure."""

from __future__ import annotations

from sys import intern

from bandwidth.annotations import Direction, bits
from lb.model import Pod
from lb.sources import objects
from lb.sources.notes import Notes, brief

_ENDED = ("Succeeded", "Failed")


def pod(item: objects.Pod, notes: Notes) -> Pod | None:
    """The pod; None once it has ended, for its addresses may be another's by then.

    A value that is no quantity is noted, and kept: what is in force then is not decided here.
    """
    spec, status = item.spec or objects.PodSpec(), item.status or objects.PodStatus()
    if status.phase in _ENDED:
        return None
    listed = [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
    asked = item.metadata.annotations or objects.PodAnnotations()
    for direction, text in ((Direction.EGRESS, asked.egress), (Direction.INGRESS, asked.ingress)):
        if text is not None:
            try:
                bits(text)
            except ValueError as error:
                notes.add(
                    f"{direction.annotation}: {brief(text)} {error}; "
                    "what limited the pod before goes on doing so"
                )
    return Pod(
        name=item.metadata.name,
        node=intern(spec.node_name or ""),
        addresses=notes.addresses("status.podIPs", [ip for ip in listed if ip]),
        host_network=spec.host_network or False,
        egress=asked.egress,
        ingress=asked.ingress,
        # A static pod's own name is in its mirror's annotation (kubelet, pkg/kubelet/types).
        uid=asked.mirrored or item.metadata.uid or "",
    )
