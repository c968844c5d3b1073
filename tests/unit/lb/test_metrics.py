"""Metrics as a scraper sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from lb.metrics import TidegateCollector
from tests.unit.lb.test_controller import WEB, Bench

EXPECTED = {
    "tidegate_synced 1.0",
    "tidegate_source_up 1.0",
    "tidegate_services 1.0",
    "tidegate_failing 0.0",
    "tidegate_refused_objects 0.0",
    'tidegate_drops_total{reason="no_backend"} 3.0',
    "tidegate_sockets_ended_total 2.0",
    'tidegate_map_entries{map="frontends"} 2.0',
}


def test_a_scrape_tells_the_agents_state() -> None:
    """Every metric is there, by its name and labels, from the agent's own accounts."""
    bench = Bench()
    bench.apply(WEB)
    bench.sync()
    registry = CollectorRegistry()
    registry.register(TidegateCollector(bench.controller, lambda: {"no_backend": 3}, lambda: 2))
    lines = set(generate_latest(registry).decode().splitlines())
    assert lines >= EXPECTED
