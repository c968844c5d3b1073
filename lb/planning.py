"""`plan DIR`: what the maps would hold, computed on maps in memory by the agent's own code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bpf.layout import AddressFlag, NodeAddress
from bpf.maps import MemoryHash
from lb.config import node_name
from lb.dump import lines, summary
from lb.errors import BadInput
from lb.model import Refused
from lb.plan import Here
from lb.reconcile import Reconciler
from lb.show import services
from lb.sources.manifests import read_directory
from lb.store import Store
from lb.tables import in_memory


def planned(folder: Path, node: str) -> dict[str, Any]:
    """The maps for the manifests in `folder`, as text lines and rows. Raises BadInput."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such directory")
    changes, problems = read_directory(folder)
    name = node_name(node, os.uname().nodename)
    store = Store(name, host_ports=True, pod_weights=True)
    store.apply(changes)
    own = store.node
    here = Here(name, own.zone if own else "", own.addresses if own else ())
    tables = in_memory()
    reconciler = Reconciler(tables, guard=lambda: None)
    reconciler.step({one: store.plans(one, here) for one in sorted(store.names())}, now=0.0)
    notes = [*problems, *[one for group in store.refused.values() for one in group]]
    return {
        "node": name,
        "maps": summary(tables),
        "services": services(tables, _taking_node_ports(here)),
        "lines": lines(tables),
        "refused": [_row(one) for one in notes if one.wrong],
        "left_alone": [_row(one) for one in notes if not one.wrong],
        "failing": [
            {"subject": str(unit), "reason": one.error} for unit, one in reconciler.failing.items()
        ],
    }


def _taking_node_ports(here: Here) -> MemoryHash:
    """The node's addresses, as far as files tell; which of them it holds, nobody knows here."""
    table = MemoryHash(len(here.addresses))
    flags = NodeAddress(AddressFlag.NODE_PORT).pack()
    table.put(dict.fromkeys(map(bytes, here.addresses), flags))
    return table


def _row(one: Refused) -> dict[str, str]:
    return {"subject": one.subject, "reason": one.reason}
