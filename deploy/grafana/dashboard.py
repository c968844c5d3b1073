"""The dashboard as a table of rows; each becomes a panel of Grafana's JSON model.

A test writes it again and compares, and asks a running agent for every metric that is named here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

OUT = Path(__file__).parent / "tidegate.json"
_WIDTH, _HEIGHT = 12, 7
_NODE = 'instance=~"$node"'


class Panel(NamedTuple):
    """A graph, or one number. `expression` is PromQL, where NODE stands for the node's filter."""

    title: str
    expression: str
    legend: str
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""


PANELS = (
    Panel(
        "Nodes in step", "sum(tidegate_synced{NODE})", "nodes", kind="stat",
        description="Agents that have applied a first full state.",
    ),
    Panel(
        "Service ports that fail", "sum(tidegate_failing{NODE})", "ports", kind="stat",
        description="Not as asked for; `tidegate status` on the node says why.",
    ),
    Panel(
        "Source of objects", "min by (instance) (tidegate_source_up{NODE})", "{{instance}}",
        description="1 while the API server, or the directory of manifests, can be read.",
    ),
    Panel("Service ports", "tidegate_services{NODE}", "{{instance}}"),
    Panel(
        "Refused calls and dropped packets",
        "sum by (reason) (rate(tidegate_drops_total{NODE}[$__rate_interval]))", "{{reason}}",
        "pps", description="The README explains each reason.",
    ),
    Panel(
        "Put back", "sum by (what) (increase(tidegate_repairs_total{NODE}[$__rate_interval]))",
        "{{what}}", description="What somebody took off or altered behind the agent's back.",
    ),
    Panel(
        "How full the maps are",
        "max by (map) (tidegate_map_entries{NODE} / tidegate_map_capacity{NODE})", "{{map}}",
        "percentunit", description="The fullest node. At 1 the next service does not fit.",
    ),
    Panel(
        "Changes", "rate(tidegate_changes_total{NODE}[$__rate_interval])", "{{instance}}", "ops",
        description="Turns that changed anything.",
    ),
    Panel(
        "From a pod's change to applied, p99",
        "histogram_quantile(0.99, sum by (le, instance) ("
        "rate(tidegate_programming_duration_seconds_bucket{NODE}[$__rate_interval])))",
        "{{instance}}", "s",
    ),
    Panel(
        "From arrival to applied, p99",
        "histogram_quantile(0.99, sum by (le, instance) ("
        "rate(tidegate_apply_duration_seconds_bucket{NODE}[$__rate_interval])))",
        "{{instance}}", "s",
    ),
    Panel(
        "Writes to the maps", "rate(tidegate_writes_total{NODE}[$__rate_interval])",
        "{{instance}}", "wps",
    ),
    Panel(
        "Maglev tables built", "sum by (result) (rate("
        "tidegate_table_builds_total{NODE}[$__rate_interval]))", "{{result}}", "ops",
        description="And tries that came to nothing, by reason: such services go without a table.",
    ),
    Panel(
        "Time to build a Maglev table, p99",
        "histogram_quantile(0.99, sum by (le, instance) ("
        "rate(tidegate_table_build_duration_seconds_bucket{NODE}[$__rate_interval])))",
        "{{instance}}", "s",
    ),
    Panel(
        "Bytes that waited at pods' limits",
        "topk(10, sum by (namespace, pod, direction) ("
        "rate(tidegate_limit_delayed_bytes_total{NODE}[$__rate_interval])))",
        "{{namespace}}/{{pod}} {{direction}}", "Bps",
        description="The ten pods with most of them.",
    ),
    Panel(
        "Bytes dropped at pods' limits",
        "topk(10, sum by (namespace, pod, direction) ("
        "rate(tidegate_limit_dropped_bytes_total{NODE}[$__rate_interval])))",
        "{{namespace}}/{{pod}} {{direction}}", "Bps",
        description="Their queue was full.",
    ),
    Panel(
        "Versions", "count by (version) (tidegate_build_info{NODE})", "{{version}}",
    ),
    Panel(
        "Objects not taken whole", "tidegate_refused_objects{NODE}", "{{instance}}",
        description="`tidegate status` names them.",
    ),
    Panel(
        "UDP sockets ended",
        "increase(tidegate_sockets_ended_total{NODE}[$__rate_interval])", "{{instance}}",
        description="Their backend was gone; their owners connect anew.",
    ),
    Panel(
        "Agent: memory", 'process_resident_memory_bytes{job=~".*tidegate.*", NODE}',
        "{{instance}}", "bytes",
    ),
    Panel(
        "Agent: CPU",
        'rate(process_cpu_seconds_total{job=~".*tidegate.*", NODE}[$__rate_interval])',
        "{{instance}}", "percentunit",
    ),
)  # fmt: skip


def text() -> str:
    """The JSON, as it is committed."""
    return json.dumps(dashboard(), indent=2) + "\n"


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model (schema version 39, Grafana 10.4 and later)."""
    return {
        "uid": "tidegate",
        "title": "Tidegate",
        "tags": ["kubernetes", "network"],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_source(), _nodes()]},
        "panels": [_panel(number, one) for number, one in enumerate(PANELS)],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _nodes() -> dict[str, Any]:
    return {
        "name": "node",
        "label": "Node",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": "label_values(tidegate_synced, instance)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, one: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": one.kind,
        "title": one.title,
        "description": one.description,
        "datasource": source,
        "gridPos": {
            "x": number % 2 * _WIDTH,
            "y": number // 2 * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": "A",
                "datasource": source,
                "expr": one.expression.replace("NODE", _NODE),
                "legendFormat": one.legend,
            }
        ],
    }
