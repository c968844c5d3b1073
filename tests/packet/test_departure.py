"""The arithmetic of departure times: the program against the model, packet by packet.

What the model promises (exact rates, no bursts, bounded queues) is tested on the model alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth.pacing import SECOND, Departure, Pacer, Terms, depart, terms
from bpf import libbpf
from bpf.layout import Edt, Limit
from bpf.maps import KernelArray
from bpf.module import Program
from bpf.pins import Pins
from lb.config import table_sizes

SOURCE = "../tests/packet/edt_arithmetic.c"
_QUESTION = struct.Struct("=QQIIQQ")


class Packet(NamedTuple):
    """`gap`: ns since the packet before; `ahead`: ns at which its sender wants it to leave."""

    gap: int
    flow: int
    length: int
    ahead: int = 0


class Arithmetic:
    """The program on an entry of its own."""

    def __init__(self, folder: Path) -> None:
        pins = Pins(folder)
        programs = (Program("edt_arithmetic", 3, -1),)
        found = pins.build(SOURCE, programs, table_sizes({}), {})
        self._program = libbpf.open_pin(str(found / "edt_arithmetic"))
        self._limits: KernelArray = pins.open_array("limits")

    def reset(self, told: Terms) -> None:
        """A limit that nobody used yet."""
        self._limits.write(1, struct.pack("=3Q", *told).ljust(Limit.SIZE, b"\0"))

    def entry(self) -> Limit:
        """As it is now."""
        return Limit.unpack(self._limits.read(1))

    def depart(self, now: int, packet: Packet) -> Departure | None:
        """What the program says."""
        asked = now + packet.ahead if packet.ahead else 0
        data = _QUESTION.pack(now, asked, packet.flow, packet.length, 0, 0)
        ran = libbpf.test_run(self._program, bytes(14) + data)
        assert ran.verdict == 0
        at, _, _, _, mark, overtook = _QUESTION.unpack_from(ran.packet, 14)
        return Departure(at, bool(mark), bool(overtook)) if at else None

    def close(self) -> None:
        """The program goes."""
        os.close(self._program)


@pytest.fixture(scope="module")
def arithmetic(folder: Path) -> Iterator[Arithmetic]:
    """In a folder of its own."""
    made = Arithmetic(folder)
    yield made
    made.close()


RATES = st.one_of(
    st.integers(1_000, 10**15),
    st.sampled_from([1_000, 8 * 10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**15]),
)
LENGTHS = st.one_of(
    st.integers(14, 1514), st.integers(1515, 1 << 19), st.sampled_from([14, 60, 1514, Edt.FRAME])
)
GAPS = st.one_of(
    st.just(0), st.integers(0, 10_000), st.integers(0, 10**8), st.integers(0, 3600 * SECOND)
)
PACKETS = st.builds(
    Packet, GAPS, st.integers(0, (1 << 32) - 1) | st.integers(0, 3), LENGTHS,
    st.just(0) | st.integers(0, 4 * SECOND),
)  # fmt: skip
STARTS = st.sampled_from([1, SECOND, 10**15, 9 * 365 * 86400 * SECOND])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=RATES, start=STARTS, packets=st.lists(PACKETS, min_size=1, max_size=60))
def test_the_program_is_the_model(
    arithmetic: Arithmetic, rate: int, start: int, packets: list[Packet]
) -> None:
    """Any rate from 1 kbit/s to 1 Pbit/s, any lengths and pauses, nine years after boot as well."""
    told = terms(rate)
    arithmetic.reset(told)
    model, now = Pacer(told), start
    for packet in packets:
        now += packet.gap
        asked = now + packet.ahead if packet.ahead else 0
        wanted = depart(model, hash_=packet.flow, length=packet.length, now=now, asked=asked)
        assert arithmetic.depart(now, packet) == wanted
    entry = arithmetic.entry()
    assert (entry.clock, entry.quick, list(entry.flow)) == (model.clock, model.quick, model.flow)


def test_a_clock_that_steps_back_harms_nobody(arithmetic: Arithmetic) -> None:
    """It never does; if it did, packets would wait for what was promised, and no longer."""
    told = terms(10**7)
    arithmetic.reset(told)
    now = 5 * SECOND
    first = arithmetic.depart(now, Packet(0, 1, 1514))
    assert first == Departure(now, mark=False, overtook=False)
    assert arithmetic.depart(now - SECOND, Packet(0, 1, 1514)) is None
    assert arithmetic.depart(now + SECOND, Packet(0, 1, 1514)) is not None


def test_cpus_at_once_take_no_time_twice(arithmetic: Arithmetic) -> None:
    """Packets that meet leave one after the other, each its own length later: never too fast."""
    told = terms(10**9)
    arithmetic.reset(told)
    length, now, each = 3000, 5 * SECOND, 250
    with ThreadPoolExecutor(4) as pool:
        several = pool.map(
            lambda flow: [arithmetic.depart(now, Packet(0, flow, length)) for _ in range(each)],
            range(4),
        )
    times = sorted(one.at for some in several for one in some if one is not None)
    gap = length * SECOND // told.rate
    assert times == [now + gap * number for number in range(4 * each)]
