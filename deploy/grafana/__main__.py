"""Writes deploy/grafana/tidegate.json."""

from __future__ import annotations

from deploy.grafana.dashboard import OUT, text

OUT.write_text(text())
