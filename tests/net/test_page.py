"""The page in a real browser: what it shows, by keyboard, in both colours and on a phone."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bandwidth.annotations import Direction
from bpf.netns import entered
from tests.bed import connect, until
from tests.bed.agent import command
from tests.net.browser import Browser, missing
from tests.net.outside import Outside, Place
from tests.net.test_limit_drops import limited
from tests.net.world import World

AT = "127.0.0.1:10270"
pytestmark = pytest.mark.parametrize(
    "world",
    [("two_nodes", "--page-bind-address", AT, "--repair-interval", "0", "--bandwidth", "off")],
    indirect=True,
)
SHOTS = os.environ.get("TIDEGATE_SCREENSHOTS")
"""A folder for the pictures, if somebody wants to look at them."""
ROW = "document.querySelector('[data-service=\"default/shop//TCP\"]')"


@pytest.fixture(scope="module")
def shop(outside: Outside) -> Place:
    """A service with two backends, one that is left, one without any."""
    outside.expose("empty", [])
    places = outside.expose("shop", outside.world.webs)
    connect(outside.client, places["balancer"].at.ipv4, places["balancer"].port, count=30)
    nobody = outside.expose("closed", [], external_policy="Local")["balancer"]
    connect(outside.client, nobody.at.ipv4, nobody.port, "--timeout", "0.2")
    return places["balancer"]


@contextmanager
def browsing(world: World, folder: Path) -> Iterator[Browser]:
    """The page, with its first facts."""
    browser = Browser(world.node, folder)
    try:
        browser.go(f"http://{AT}/")
        browser.await_true(f"{ROW} !== null")
        yield browser
    finally:
        browser.close()


def get(world: World, path: str, *, host: str = AT) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of an answer."""
    with entered(Path("/run/netns") / world.node.namespace):
        connection = http.client.HTTPConnection(AT, timeout=30)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
    body = answer.read()
    connection.close()
    kind = answer.headers["Content-Type"]
    return answer.status, json.loads(body) if "json" in kind else body, dict(answer.headers)


LOOKS = {"light": (1200, False), "dark": (1200, True), "phone": (390, False)}
"""By name: the window's width, and whether the system prefers dark."""


def test_in_a_browser(world: World, shop: Place, tmp_path: Path) -> None:
    """Found, chosen and explained by keyboard; readable in every look; no complaint."""
    if reason := missing():
        pytest.skip(reason)
    with limited(world, "app-0", Direction.EGRESS), browsing(world, tmp_path) as browser:
        limits = browser.run("document.getElementById('limits').textContent")
        assert "default/app-0" in limits
        assert "1 kbit/s" in limits
        assert browser.run("document.getElementById('health').textContent") == "healthy"
        browser.run("document.getElementById('find').focus()")
        browser.keys("shop\ue004\ue007")  # Tab, Enter
        browser.await_true("document.getElementById('one').textContent.includes('Maglev ring')")
        text = browser.run("document.getElementById('one').textContent")
        for pod in world.webs:
            assert f"{pod.ipv4}:8080" in text
            assert f"[{pod.ipv6}]:8080" in text
        assert f"{shop.at.ipv4}" in text
        assert browser.run("document.getElementById('list').children.length") == 1
        assert "no_backend" in browser.run("document.getElementById('drops').textContent")
        browser.run("document.querySelector('[name=source]').focus()")
        browser.keys(f"{world.cluster.client.ipv4}:40000\ue004{shop.at.ipv4}:80\ue007")
        browser.await_true("document.getElementById('answer').textContent.includes('verdict')")
        answer = browser.run("document.getElementById('answer').textContent")
        assert "load balancer address of default/shop" in answer
        for look, (width, dark) in LOOKS.items():
            browser.look(width=width, height=900, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= width
            ground = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(14, 21, 19)") is dark
            if SHOTS:
                browser.shot(Path(SHOTS) / f"page-{look}.png")
        assert browser.errors() == []


def test_facts(world: World, shop: Place) -> None:
    """The rows of `show`, the status, and the shares of a ring add up."""
    assert shop
    # Those of an earlier test may be shown a moment longer: facts are kept for the next who asks.
    until(lambda: get(world, "/facts")[1]["limits"] == [], "no limits", timeout=10)
    status, facts, headers = get(world, "/facts")
    assert status == 200
    assert facts["status"]["healthy"] is True
    assert {row["name"] for row in facts["services"]} >= {"shop", "empty", "closed"}
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    _, answer, _ = get(world, "/rings?namespace=default&name=shop&port=")
    assert {ring["family"] for ring in answer["rings"]} == {"IPv4", "IPv6"}
    for ring in answer["rings"]:
        assert sum(one["slots"] for one in ring["shares"]) == ring["slots"]
        assert len(ring["shares"]) == 2


def test_it_is_read_only_and_its_own(world: World, shop: Place) -> None:
    """Other methods, hosts and paths are refused; a bad question is told so in one line."""
    assert shop
    assert get(world, "/facts", host="evil.example")[0] == 403
    assert get(world, "/nothing")[0] == 404
    status, answer, _ = get(world, "/explain?protocol=tcp&source=x&destination=y")
    assert (status, "write ADDRESS:PORT" in answer["error"]) == (400, True)
    page = get(world, "/")[1].decode()
    for word in ("http://", "https://", "//cdn", "@import", "url("):
        assert page.replace("http://www.w3.org/2000/svg", "").count(word) == 0, word


def test_only_on_loopback(world: World) -> None:
    """It has no password, so nobody else may see it."""
    argv = ("agent", "--page-bind-address", "0.0.0.0:80", "--cgroup", str(world.agent.group))
    done = world.node.run(*command(), *argv, check=False)
    assert (done.returncode, "not on loopback" in done.stderr) == (2, True)
