"""One bench for all packet tests, or the reason why there is none here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own import own_folder, unable
from tests.packet.bench import Bench, standing
from tests.packet.net import V4, V6, Net
from tests.packet.packets import Make, tcp, udp

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are `bpf` tests."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.bpf)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """Programs and tables in a folder of its own; both go at the end."""
    if reason := unable():
        pytest.skip(reason)
    with standing() as made:
        yield made


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """For tables of other sizes, or programs that the bench has not."""
    if reason := unable():
        pytest.skip(reason)
    with own_folder("packet") as made:
        yield made


@pytest.fixture(params=[V4, V6], ids=["IPv4", "IPv6"])
def net(request: pytest.FixtureRequest) -> Net:
    """Each test runs in both families."""
    return request.param


@pytest.fixture(params=[tcp, udp], ids=["TCP", "UDP"])
def l4(request: pytest.FixtureRequest) -> Make:
    """Each test runs over both protocols: `tcp` or `udp` of `tests.packet.packets`."""
    return request.param
