"""What the agent says of itself: the `status` JSON, and the comparison behind `verify`.

Reads the controller's state under its lock and the maps; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lb.controller import Controller
from lb.names import show_key
from lb.plan import Unit
from lb.reconcile import Reconciler
from lb.restore import Found, restore
from lb.sources import Report
from lb.tables import FLAGS


def status(
    controller: Controller,
    hooks: dict[str, bool],
    sockets_ended: int,
    features: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole answer; `hooks` says which programs are attached to sockets.

    `features` are those of devices, as shown. The caller holds the lock.
    """
    failing = _failing(controller)
    attached = all(hooks.values())
    missing = ", ".join(name for name, there in hooks.items() if not there)
    socket_lb = {"state": "on"} if attached else {"state": "off", "reason": f"detached: {missing}"}
    source = _source(controller)
    return {
        "node": controller.settings.node_name,
        "zone": controller.here.zone,
        "healthy": controller.is_synced
        and attached
        and not failing
        and not controller.error
        and not any(one["state"] == "degraded" for one in features.values()),
        "error": controller.error,
        "revision": controller.revision,
        "writes": controller.writes,
        "source": source,
        "services": len({unit.service for unit in controller.reconciler.units}),
        "backends": controller.reconciler.placer.backends.used,
        "features": {
            "socket-lb": socket_lb,
            "maglev": _maglev(controller),
            **features,
        },
        "failing": failing,
        "refused": _refused(controller),
        "sockets_ended": sockets_ended,
        "bpffs": str(controller.settings.bpffs),
        "cgroup": str(controller.settings.cgroup),
    }


def _source(controller: Controller) -> dict[str, Any]:
    kind = "manifests" if controller.settings.manifests is not None else "kubernetes"
    report = controller.reports.get(kind, Report(kind, ""))
    return {
        "kind": kind,
        "location": report.location,
        "synced": controller.is_synced,
        "error": report.error,
    }


def _maglev(controller: Controller) -> dict[str, Any]:
    """Whether all services have their tables; those without are served all the same."""
    without = controller.reconciler.ringless
    if not without:
        return {"state": "on"}
    named = ", ".join(dict.fromkeys(str(unit.service) for unit in without[:3]))
    more = ", ..." if len(without) > 3 else ""
    reason = (
        f"{len(without)} service ports ({named}{more}) have no table for want of room, and go by "
        f"a hash over their backends: raise {FLAGS['rings']}"
    )
    return {"state": "on", "reason": reason}


def _failing(controller: Controller) -> list[dict[str, Any]]:
    """Services that the maps do not hold as asked for, each with what to do about it."""
    reconciler = controller.reconciler
    rows = [_row(unit, error) for unit, error in reconciler.troubles().items()]
    return sorted(rows, key=lambda row: (row["namespace"], row["name"], row["port_name"]))


def _row(unit: Unit, error: str) -> dict[str, Any]:
    return {
        "namespace": unit.service.namespace,
        "name": unit.service.name,
        "port_name": unit.port,
        "protocol": unit.protocol.name,
        "family": unit.family.label,
        "error": error,
    }


def _refused(controller: Controller) -> list[dict[str, str]]:
    """What is wrong with files and objects; what Kubernetes itself leaves alone is no fault."""
    of_sources = [one for report in controller.reports.values() for one in report.problems]
    of_objects = [one for group in controller.store.refused.values() for one in group if one.wrong]
    return [{"subject": one.subject, "reason": one.reason} for one in of_sources + of_objects]


def differences(reconciler: Reconciler) -> list[str]:
    """What the maps hold that they should not, and the reverse; a line each."""
    found = restore(reconciler.tables)
    lines = list(found.faults)
    there = dict(reconciler.tables.frontends.items())
    unwanted = there.keys() - reconciler.frontends.there.keys()
    lines += [f"frontend {show_key(key)} should not be there" for key in unwanted]
    for key, value in reconciler.frontends.there.items():
        if there.get(key) != value:
            lines.append(f"frontend {show_key(key)} is {'wrong' if key in there else 'missing'}")
    lines += _unit_differences(reconciler, found)
    return lines


def _unit_differences(reconciler: Reconciler, found: Found) -> list[str]:
    unwanted = found.units.keys() - reconciler.units.keys()
    lines = [f"{unit} should not be there" for unit in unwanted]
    for unit, placed in reconciler.units.items():
        if unit in reconciler.failing:
            continue
        there = found.units.get(unit)
        if there is None:
            lines.append(f"{unit} is missing")
        elif (there.views, there.affinity, there.ring) != (
            placed.views,
            placed.affinity,
            placed.ring,
        ):
            lines.append(f"{unit}: the service's entry differs")
        elif there.plan is None or placed.plan is None:
            lines.append(f"{unit}: incomplete")
        elif there.plan.backends != placed.plan.backends:
            lines.append(f"{unit}: its backends differ")
        elif there.plan.ranges != placed.plan.ranges:
            lines.append(f"{unit}: its source ranges differ")
    return lines
