"""The maps as lines of text, one record a line: what `plan` prints and golden tests compare."""

from __future__ import annotations

from typing import Any

from bpf.layout import BackendState, Empty, FrontendFlag, View
from lb.address import show_port
from lb.names import show_key
from lb.placing import Placed
from lb.plan import Plan, Unit
from lb.restore import restore
from lb.show import TYPES
from lb.tables import Tables


def lines(tables: Tables) -> list[str]:
    """Every record, in the order of units: its frontends, its views, its backends."""
    found = restore(tables)
    text: list[str] = []
    for unit in sorted(found.units):
        placed = found.units[unit]
        if placed.plan is not None:
            text += _unit(unit, placed, placed.plan)
    text += [f"fault {fault}" for fault in found.faults]
    return text


def _unit(unit: Unit, placed: Placed, plan: Plan) -> list[str]:
    affinity = f"  affinity {plan.affinity_seconds}s" if plan.affinity_seconds else ""
    text = [f"service {placed.service}  {unit}{affinity}"]
    for frontend in plan.frontends:
        named = (flag.name.lower() for flag in FrontendFlag if frontend.flags & flag)
        words = [show_key(frontend.key), TYPES[frontend.type], *named]
        text.append(f"  frontend {'  '.join(words)}")
    text += [f"  range {prefix}" for prefix in plan.ranges]
    text += [f"  view {view.name.lower()}: {_view(placed, plan, view)}" for view in View]
    for one in plan.backends:
        where = f"{one.node or '-'} {one.zone or '-'}"
        state = BackendState(one.state).name.lower()
        number = placed.backends[one.address, one.port].id
        weight = f"  weight {one.weight}" if one.weight > 1 else ""
        place = show_port(one.address, one.port)
        text.append(f"  backend {number}  {place}  {state}  {where}{weight}")
    return text


def _view(placed: Placed, plan: Plan, view: View) -> str:
    ids = [
        str(placed.backends[one.address, one.port].id)
        for one in plan.backends
        if one.views & 1 << view
    ]
    return " ".join(ids) or Empty(plan.empty[view]).name.lower()


def summary(tables: Tables) -> dict[str, Any]:
    """The same for programs: how many records of each kind."""
    found = restore(tables)
    plans = [placed.plan for placed in found.units.values() if placed.plan is not None]
    return {
        "services": len(plans),
        "frontends": sum(len(plan.frontends) for plan in plans),
        "backends": sum(len(plan.backends) for plan in plans),
        "ranges": sum(len(plan.ranges) for plan in plans),
    }
