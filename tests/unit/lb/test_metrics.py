"""Metrics as a scraper sees them."""

from __future__ import annotations

from lb import __version__
from lb.metrics import TidegateCollector, scraper
from lb.tables import Fill
from tests.unit.lb.making import slice_of
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
    'tidegate_table_builds_total{result="built"} 1.0',
    'tidegate_table_builds_total{result="map_full"} 0.0',
    "tidegate_table_build_duration_seconds_count 1.0",
    'tidegate_map_entries{map="services"} 1.0',
    'tidegate_map_entries{map="backends"} 2.0',
    'tidegate_map_entries{map="slots"} 1.0',
    'tidegate_map_entries{map="rings"} 128.0',
    'tidegate_map_entries{map="ranges"} 0.0',
    'tidegate_map_entries{map="vips"} 1.0',
    'tidegate_map_entries{map="addresses"} 3.0',
    'tidegate_map_capacity{map="addresses"} 16.0',
    'tidegate_map_entries{map="flows"} 7.0',
    'tidegate_map_capacity{map="flows"} 64.0',
    f'tidegate_build_info{{version="{__version__}"}} 1.0',
    "tidegate_apply_duration_seconds_count 1.0",
    'tidegate_programming_duration_seconds_bucket{ip_family="IPv6",le="0.0001"} 0.0',
}


def test_a_scrape_tells_the_agents_state() -> None:
    """Every metric is there, by its name and labels, from the agent's own accounts."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1", "2"))
    bench.sync()
    collector = TidegateCollector(
        bench.controller, lambda: {"no_backend": 3}, lambda: 2, fills=lambda: [Fill("flows", 7, 64)]
    )
    lines = scraper(collector)().decode().splitlines()
    assert set(lines) >= EXPECTED
    fit = float(bench.watch.plain.services.capacity - 1)
    assert f'tidegate_map_capacity{{map="services"}} {fit}' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
