"""Default routes among very many others, and who is woken by a change of routes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from bpf import neighbour, netlink, routes
from bpf.neighbour import Hop
from bpf.netlink import Watch
from bpf.routes import News

MANY = 5000
DEVICES = ("r0", "r1")


def ip(*argv: str, batch: str = "") -> None:
    """In the thread's namespace."""
    subprocess.run(["ip", *argv], input=batch, text=True, check=True, capture_output=True)


@pytest.fixture
def alone() -> Callable[[Callable[[], None]], None]:
    """Runs something in a thread with a network namespace of its own, where r0 and r1 are up."""

    def run(body: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def inside() -> None:
            try:
                unshare()
                for name in DEVICES:
                    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
                    ip("link", "set", name, "up")
                    ip("link", "set", f"{name}p", "up")
                for number, name in enumerate(DEVICES):
                    ip("addr", "add", f"192.0.2.{number * 128 + 2}/25", "dev", name)
                    ip("addr", "add", f"fd00:{number}::2/64", "dev", name, "nodad")
                body()
            except BaseException as error:  # noqa: BLE001 - raised again, by the test's own thread
                failures.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    return run


def unshare() -> None:
    """A network namespace of this thread's own, which goes with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def many() -> None:
    """Routes to all the world, in both families, some of them before a default one in order."""
    ip(
        "-batch",
        "-",
        batch="".join(
            f"route add {1 + number // 256}.{number % 256}.0.0/16 via 192.0.2.1\n"
            f"route add 2001:{number:x}::/32 via fd00:0::1\n"
            for number in range(MANY)
        )
        + "route add 0.0.0.0/8 dev r0\nroute add ::/16 dev r0\n",
    )


def ways() -> set[tuple[str, str]]:
    """Device and gateway of each default route."""
    names = netlink.names()
    return {(names[one.device], one.gateway) for one in routes.defaults()}


def test_all_ways_of_default_routes(alone: Callable[[Callable[[], None]], None]) -> None:
    """Of every metric, with each of several next hops; among thousands of other routes."""

    def body() -> None:
        assert routes.defaults() == []
        many()
        assert ways() == set()
        ip("route", "add", "default", "via", "192.0.2.1", "metric", "7")
        ip("route", "add", "default", "dev", "r1", "metric", "9")
        ip("-6", "route", "add", "default", "via", "fd00:1::1")
        assert ways() == {("r0", "192.0.2.1"), ("r1", ""), ("r1", "fd00:1::1")}
        assert netlink.default_devices() == ["r0", "r1"]
        ip("route", "del", "default", "metric", "7")
        ip("-6", "route", "del", "default")
        ip(
            "route",
            "replace",
            "default",
            "metric",
            "9",
            "nexthop",
            "via",
            "192.0.2.1",
            "nexthop",
            "via",
            "192.0.2.129",
        )
        ip(
            "-6",
            "route",
            "add",
            "default",
            "nexthop",
            "via",
            "fd00:0::1",
            "nexthop",
            "via",
            "fd00:1::1",
        )
        ip("route", "add", "default", "via", "inet6", "fd00:1::9", "metric", "11")
        ip("route", "add", "blackhole", "default", "metric", "99")
        ip("route", "add", "default", "via", "192.0.2.3", "table", "77")
        assert ways() == {
            ("r0", "192.0.2.1"),
            ("r1", "192.0.2.129"),
            ("r0", "fd00::1"),
            ("r1", "fd00:1::1"),
            ("r1", "fd00:1::9"),
        }
        assert neighbour.default_hops() == {
            Hop(one.gateway, one.device) for one in routes.defaults()
        }

    alone(body)


def test_nobody_is_woken_by_other_routes(alone: Callable[[Callable[[], None]], None]) -> None:
    """Nor by their end; by default routes, addresses and links at once, in both families."""

    def body() -> None:
        with closing(Watch()) as watch:
            while watch.wait(2):  # the devices' own news, of carriers and link-local addresses
                pass
            listen(watch)

    def listen(watch: Watch) -> None:
        many()
        ip("-4", "route", "flush", "root", "1.0.0.0/8")
        ip("-6", "route", "flush", "root", "2001::/16")
        assert not watch.wait(0)
        for argv in (
            ("route", "add", "default", "via", "192.0.2.1"),
            ("route", "del", "default"),
            ("-6", "route", "add", "default", "via", "fd00::1"),
            ("-6", "route", "del", "default"),
            ("addr", "add", "198.51.100.1/32", "dev", "r0"),
            ("-6", "addr", "add", "2001:db8::1/128", "dev", "r0"),
            ("link", "set", "r1", "down"),
        ):
            ip(*argv)
            assert watch.wait(5), argv
            while watch.wait(0):
                pass

    alone(body)


def test_news_of_routes(alone: Callable[[Callable[[], None]], None]) -> None:
    """One that came is told once; so are more than a socket holds."""

    def body() -> None:
        with closing(News()) as news:
            listen(news)

    def listen(news: News) -> None:
        assert not news.came()
        for family, route in (("-4", "198.51.100.0/24"), ("-6", "2001:db8::/32")):
            for change in ("add", "del"):
                ip(family, "route", change, route, "dev", "r0")
                assert news.came()
                assert not news.came()
        many()
        assert news.came()
        assert not news.came()

    alone(body)


def test_a_kernel_that_refuses(
    alone: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is not there has no routes; any other answer is an error."""

    def body() -> None:
        monkeypatch.setattr(routes, "_MAIN", 77)
        assert routes.defaults() == []
        monkeypatch.setattr(routes, "_GET", 9999)
        with pytest.raises(OSError, match="routes: "):
            routes.defaults()

    alone(body)
