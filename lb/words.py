"""Answers of the agent and the maps in words: what `status` and `show` print as text."""

from __future__ import annotations

from typing import Any

from lb.limits import show as limits

REASONS = {
    "no_backend": "refused: no usable backend anywhere",
    "no_local_backend": "dropped: Local policy, none on this node",
    "source_range": "dropped: the source is in none of the ranges",
    "no_memory": "refused: no room for the socket's state",
    "no_port": "dropped: no port of this node is free towards the backend",
    "no_route": "dropped: this node knows no way there",
    "hop_limit": "dropped: the packet has been through too many hops",
    "rewrite": "dropped: the kernel did not let the packet be rewritten",
    "too_big": "dropped: longer than the way takes; the sender is told",
    "not_served": "dropped: handed over by a node for no service known here",
    "no_service_port": "refused: the service at this cluster IP has no such port",
    "unallocated": "dropped: an address of a ServiceCIDR that no service has",
    "answer_limit": "dropped in silence: more refusals a second than are answered",
    "fragment": "dropped: a fragment that came before its packet's first one",
    "bandwidth": "dropped: a pod's queue at its bandwidth limit is full",
    "stranger": "dropped: handed over for a service by no node of the cluster",
}
"""What each reason means, as bpf/seen.h and the README say it."""


def status_text(status: dict[str, Any]) -> str:
    """The whole status in a few lines, what is wrong last and complete."""
    source = status["source"]
    lines = [
        f"node      {status['node']}" + (f" in zone {status['zone']}" if status["zone"] else ""),
        f"state     {'healthy' if status['healthy'] else 'not as it should be'}",
        f"source    {source['kind']} {source['location']}, "
        + ("synced" if source["synced"] else "waiting for its first full state"),
        f"serving   {status['services']} services, {status['backends']} backends",
    ]
    for name, feature in status["features"].items():
        reason = f": {feature['reason']}" if "reason" in feature else ""
        lines.append(f"{name:<9} {feature['state']}{reason}")
    if source["error"]:
        lines.append(f"error     {source['error']}")
    if status["error"]:
        lines.append(f"error     {status['error']}")
    lines += [f"failing   {_subject(row)}: {row['error']}" for row in status["failing"]]
    lines += [f"refused   {row['subject']}: {row['reason']}" for row in status["refused"]]
    return "\n".join(lines)


def _subject(row: dict[str, Any]) -> str:
    port = f":{row['port_name']}" if row["port_name"] else ""
    return f"{row['namespace']}/{row['name']}{port}/{row['protocol']}"


def _place(row: dict[str, Any]) -> str:
    text = row["address"]
    return f"[{text}]:{row['port']}" if ":" in text else f"{text}:{row['port']}"


def flattened(what: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: PLR0911
    """Rows for a table: nested lists become lines of one cell."""
    match what:
        case "services":
            return [_service(row) for row in rows]
        case "backends":
            return [row | {"service": _subject(row), "backend": _place(row)} for row in rows]
        case "affinity":
            return [row | {"service": _subject(row)} for row in rows]
        case "flows":
            return [row | {"service": _subject(row) if row["name"] else None} for row in rows]
        case "limits":
            return [limits.flat(row) for row in rows]
        case "drops":
            return [row | {"meaning": REASONS[row["reason"]]} for row in rows]
        case _:
            return rows


_COUNTS = ("connections_total", "packets", "bytes", "refusals")


def _service(row: dict[str, Any]) -> dict[str, Any]:
    state = row["state"] + (f": {row['error']}" if "error" in row else "")
    return {
        "service": _subject(row),
        "type": [one["type"] for one in row["frontends"]],
        "frontend": [_place(one) for one in row["frontends"]],
        "backend": [
            _place(one) + ("" if one["state"] == "ready" else f" {one['state']}")
            for one in row["backends"]
        ],
        "state": state,
        **{field: row.get(field) for field in _COUNTS},
    }
