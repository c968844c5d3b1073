"""What services and backends carried, summed over flows that are there and flows that left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from bpf.layout import Counter, Flow, FlowState, Listener, Load, Row, RowSize
from bpf.maps import MemoryArray, MemoryPerCpu
from lb.see.metrics import TrafficCollector
from lb.traffic import Carried, of_backend, of_service, present
from tests.unit.lb.making import slice_of
from tests.unit.lb.test_controller import WEB, Bench
from tests.unit.lb.test_flows import FLOWS, NOW, flow, row

SMALL = FLOWS.filter(lambda one: one.used and one.packets < 2**50 and one.octets < 2**50)


@given(st.lists(st.lists(SMALL, max_size=RowSize.WAYS), max_size=4))
def test_every_flow_in_the_table_counts(groups: list[list[Flow]]) -> None:
    """Alive or over, for its service and for its backend."""
    raw = b"".join(row(*[(one, 1, 1) for one in group]) for group in groups)
    flows = [one for group in groups for one in group]
    there = present([raw], NOW)
    assert sum(n for (_, word), n in there.services.items() if word == "packets") == sum(
        one.packets for one in flows
    )
    for one in flows:
        mine = [other for other in flows if other.service == one.service]
        assert there.services[one.service, "octets"] == sum(other.octets for other in mine)
        mine = [
            other for other in flows if (other.id, other.generation) == (one.id, one.generation)
        ]
        assert there.backends[one.id, one.generation, "packets"] == sum(o.packets for o in mine)


def test_sums() -> None:
    """Sockets and flows, those that left and those that are there; another generation is not."""
    raw = row((flow(id=7, generation=1), 1, 1), (flow(id=7, generation=2), 2, 2))
    raw += row((flow(id=7, generation=1, state=FlowState.FREE), 3, 3))
    there = present([raw], NOW)
    load = Load(opened=5, closed=2, flows=4, packets=100, octets=1000)
    assert of_backend(load, 7, 1, there) == Carried(9, 3 + 1, 120, 11000)
    counters = MemoryPerCpu(Counter.SIZE // 8)
    assert of_service(counters, 1, there) == Carried(0, 2, 30, 15000)
    counters.counts[1] = (5, 4, 100, 1000, 6)
    assert of_service(counters, 1, there) == Carried(9, 2, 130, 16000, 6)


def _scraped(bench: Bench, limit: int) -> set[str]:
    flows = MemoryArray(2, Row.SIZE)
    flows.write(1, row((flow(id=1, generation=1, service=1), 1, 1)))
    listening = MemoryArray(1, Listener.SIZE)
    listening.write(0, Listener(0, 0, 3).pack())
    registry = CollectorRegistry()
    registry.register(TrafficCollector(bench.controller, flows, listening, limit=limit))
    return set(generate_latest(registry).decode().splitlines())


def test_a_scrape_has_services_and_backends() -> None:
    """By name, and how full the flows are, and how many events were lost."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1 n1", "2 n2"))
    bench.sync()
    web = 'namespace="default",port_name="",protocol="TCP",service="web"'
    lines = _scraped(bench, 100)
    assert f'tidegate_service_packets_total{{family="IPv4",{web}}} 10.0' in lines
    assert {line for line in lines if "backend_bytes_total{" in line} == {
        f'tidegate_backend_bytes_total{{backend="10.0.0.{n}:8080",family="IPv4",{web}}} {count}'
        for n, count in ((1, 5000.0), (2, 0.0))
    }
    assert {"tidegate_flows 1.0", "tidegate_flows_capacity 16.0"} < lines
    assert {"tidegate_events_lost_total 3.0", "tidegate_series_left_out 0.0"} < lines


def test_a_scrape_is_bounded() -> None:
    """Services first, then backends, and what is left out is counted."""
    bench = Bench()
    bench.apply(WEB, slice_of("web", "1 n1", "2 n2"))
    bench.sync()
    lines = _scraped(bench, 2)
    assert sum("service_packets_total{" in line for line in lines) == 1
    assert sum("backend_packets_total{" in line for line in lines) == 1
    assert "tidegate_series_left_out 1.0" in lines
