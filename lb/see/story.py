"""What `explain` found, in sentences. Pure."""

from __future__ import annotations

from typing import Any

from lb.words import REASONS

_TYPES = {
    "cluster_ip": "the ClusterIP", "node_port": "a NodePort", "external_ip": "an ExternalIP",
    "load_balancer": "a load balancer address", "host_port": "a HostPort",
}  # fmt: skip
_VIEWS = {
    "cluster_ip": "the internal traffic policy counts",
    "inside": "it is asked from inside the cluster, so all endpoints count",
    "outside": "it is asked from outside, so the external traffic policy counts",
}


def story(answer: dict[str, Any]) -> list[str]:
    """A sentence a step: frontend, policy, affinity, slot, backend, rewriting, device."""
    lines = [_begin(answer)]
    if answer.get("answers"):
        return [
            *lines,
            f"It is an answer to {answer['answers']}, of {answer['service']}.",
            *_end(answer),
        ]
    if "frontend_type" not in answer:
        if answer["reason"]:
            said = f"{answer['reason']}: {REASONS[answer['reason']]}."
            return [*lines, f"No service has {answer['destination']}.", said]
        lines.append(f"{answer['destination']} is no service's address: nothing is done to it.")
        return lines
    lines.append(
        f"{answer['frontend']} is {_TYPES[answer['frontend_type']]} of {answer['service']}; "
        f"{_VIEWS[answer['view']]}: {_count(answer['candidates'])}."
    )
    if answer["has_ranges"]:
        allowed = "is not" if answer["reason"] == "source_range" else "is"
        lines.append(f"It has source ranges, and the source {allowed} in one of them.")
    if answer["backend"]:
        lines += _choice(answer)
    if answer["reason"]:
        lines.append(f"{answer['reason']}: {REASONS[answer['reason']]}.")
    return lines + _end(answer)


def _begin(answer: dict[str, Any]) -> str:
    who = f" (pod {answer['source_pod']})" if answer["source_pod"] else ""
    if answer["via"] == "socket":
        return f"A socket{who} on this node connects from {answer['source']}."
    if answer["via"] == "pod":
        return (
            f"A packet from {answer['source']}{who}, whose sockets no hook sees, "
            f"comes in by its pod's device {answer['device_in']}."
        )
    return f"A packet from {answer['source']}{who} comes in by {answer['device_in']}."


def _count(candidates: list[str]) -> str:
    if not candidates:
        return "no backend"
    return "1 backend" if len(candidates) == 1 else f"{len(candidates)} backends"


def _choice(answer: dict[str, Any]) -> list[str]:
    lines = []
    known = answer.get("flow")
    if known not in (None, "begins"):
        lines.append(f"The connection is known ({known}) and stays with its backend.")
    elif answer["affinity_seconds"]:
        said = "is remembered and keeps its backend" if answer["remembered"] else "is new to it"
        lines.append(f"Session affinity of {answer['affinity_seconds']} s: the client {said}.")
    if answer.get("ring") and not answer["remembered"]:
        ring = answer["ring"]
        lines.append(f"Maglev: slot {ring['slot']} of {ring['slots']} of the service's ring.")
    if answer["via"] == "socket" and answer["algorithm"] and not answer["remembered"]:
        lines.append("A socket's backend is taken at random; another time it may be another.")
    pod = f", pod {answer['backend_pod']}" if answer["backend_pod"] else ""
    node = f", on {answer['backend_node']}" if answer["backend_node"] else ""
    return [*lines, f"The backend is {answer['backend']}{pod}{node}."]


def _end(answer: dict[str, Any]) -> list[str]:
    verdict, out = answer["verdict"], answer.get("device_out") or "?"
    sent = answer.get("sent")
    if verdict not in ("local", "forward"):
        return []
    if answer["via"] == "socket":
        return [
            f"The socket is connected to it, and goes on showing {answer['frontend']}; by {out}."
        ]
    ways = f" as {sent['source']} -> {sent['destination']}" if sent else ""
    if verdict == "local":
        return [f"It is on this node: handed up{ways}, to {out}."]
    if answer.get("dispatch"):
        how = "wrapped" if answer["dispatch"] == "ipip" else "with the question as an IP option"
        return [f"It is sent on{ways}, {how}, by {out}; that node answers the client itself."]
    return [
        f"It is sent on{ways}, by {out}"
        + ("; answers come back here." if answer.get("port") else ".")
    ]
