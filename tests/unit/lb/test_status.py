"""What the agent says of itself, and what `verify` finds."""

from __future__ import annotations

import pytest

from lb.model import Change, Key, Kind, Refused
from lb.sources import Report
from lb.status import differences, show_key, status
from tests.unit.lb.faulty import watched
from tests.unit.lb.making import service, slice_of
from tests.unit.lb.test_controller import WEB, Bench


@pytest.fixture
def bench() -> Bench:
    """A controller with one service, applied."""
    made = Bench()
    made.apply(WEB, slice_of("web", "1", "2"))
    made.sync()
    return made


def test_good_maps_have_no_differences(bench: Bench) -> None:
    """Nothing to say."""
    assert differences(bench.reconciler) == []


def _spoil_frontend(bench: Bench) -> None:
    table = bench.watch.plain.frontends
    table.put({key: bytes(len(value)) for key, value in table.items()})


def _lose_frontend(bench: Bench) -> None:
    table = bench.watch.plain.frontends
    table.remove([next(table.items())[0]])


def _add_frontend(bench: Bench) -> None:
    bench.watch.plain.frontends.put({bytes(17) + b"\1\6\0": bytes([1, 0, 0, 0, 0, 0, 0, 0])})


def _spoil_service(bench: Bench) -> None:
    bench.watch.plain.services.store_word(1, 0, 0)


def _lose_service(bench: Bench) -> None:
    bench.watch.plain.services.write(1, bytes(40))


def _spoil_backend(bench: Bench) -> None:
    bench.watch.plain.backends.store_word(1, 8, 0)


def _free_backend(bench: Bench) -> None:
    bench.watch.plain.backends.store_word(1, 16, 1 << 32)


def _spoil_list(bench: Bench) -> None:
    bench.watch.plain.slots.store_word(1, 0, 0)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_spoil_frontend, "is wrong"),
        (_lose_frontend, "is missing"),
        (_add_frontend, "should not be there"),
        (_spoil_service, "entry differs"),
        (_lose_service, "is missing"),
        (_spoil_backend, "backends differ"),
        (_free_backend, "lists a backend that is not there"),
        (_spoil_list, "lists a backend that is not there"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_every_harm_is_found(bench: Bench, harm: object, said: str) -> None:
    """`verify` says what differs, in words."""
    assert callable(harm)
    harm(bench)
    assert any(said in line for line in differences(bench.reconciler))


def test_healthy_is_synced_attached_and_applied(bench: Bench) -> None:
    """Everything in order; and a detached program is named."""
    good = status(bench.controller, {"connect4": True}, 3, {})
    assert (good["healthy"], good["services"], good["backends"]) == (True, 1, 2)
    assert (good["features"]["socket-lb"], good["sockets_ended"]) == ({"state": "on"}, 3)
    bad = status(bench.controller, {"connect4": True, "connect6": False}, 0, {})
    assert bad["healthy"] is False
    assert bad["features"]["socket-lb"] == {"state": "off", "reason": "detached: connect6"}


def test_what_is_wrong_with_objects_is_listed_and_what_is_left_alone_is_not(bench: Bench) -> None:
    """Faults of files and of objects; headless services are none; neither makes unhealthy."""
    problems = (Refused("x.yaml:3", "does not parse"),)
    bench.controller.report(Report("manifests", "/m", problems=problems))
    headless = (Refused("Service default/h", "headless", wrong=False),)
    wrong = (Refused("Service default/w", "port 0"),)
    for name, refused in (("h", headless), ("w", wrong)):
        bench.controller.changed([Change(Key(Kind.SERVICE, "default", name), None, refused)])
    bench.controller.turn(1.0)
    answer = status(bench.controller, {}, 0, {})
    assert answer["refused"] == [
        {"subject": "x.yaml:3", "reason": "does not parse"},
        {"subject": "Service default/w", "reason": "port 0"},
    ]
    assert answer["healthy"] is True


def test_keys_in_words() -> None:
    """Addresses with their port, IPv6 in brackets, node ports as such."""
    bench = Bench()
    bench.apply(service("web", "10.96.0.10", "fd00::10", node_port=30080))
    bench.sync()
    assert sorted(show_key(key) for key in bench.reconciler.frontends.there) == [
        "10.96.0.10:80/TCP",
        "[fd00::10]:80/TCP",
        "node port 30080/TCP",
        "node port 30080/TCP",
    ]


def test_services_without_a_maglev_table_are_told() -> None:
    """By name, with the flag; they are served all the same, so nothing is failing."""
    bench = Bench(watched({"rings": 64}))
    bench.apply(WEB, slice_of("web", "1", "2"))
    bench.sync()
    said = status(bench.controller, {}, 0, {})
    assert (said["healthy"], said["failing"]) == (True, [])
    assert said["features"]["maglev"]["state"] == "on"
    assert "(default/web)" in said["features"]["maglev"]["reason"]
    assert "--max-rings" in said["features"]["maglev"]["reason"]
    bench.apply(slice_of("web"))
    assert status(bench.controller, {}, 0, {})["features"]["maglev"] == {"state": "on"}
