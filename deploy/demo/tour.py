"""Every try of the tour, in order. A try holds when what is seen is, word for word, as expected."""

from __future__ import annotations

import functools
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple

from deploy.demo import bandwidth, edge
from deploy.demo.asking import NO_ANSWER, OFTEN, PATIENCE, REFUSED, Seen, dns, health, http, peer
from deploy.demo.stage import Stage
from tests.bed import Agent, Host, Node, Outcome, Talk, connect, curl, until

BOTH = "web-1 and web-2"
WEB_2 = "  - addresses: [10.244.2.11]\n    nodeName: n2\n    zone: zone-b\n"
BROKEN = "apiVersion: v1\nkind: Service\nmetadata: {name: broken\n"


class Try(NamedTuple):
    """One row of the table."""

    asked: str
    origin: str
    expected: str
    do: Callable[[], Seen]


def tour(stage: Stage) -> Iterator[Try]:
    """All that leaves the cluster standing."""
    yield from _addresses(stage)
    yield from _choices(stage)
    yield from _outside(stage)
    yield from _direct(stage)
    yield from _nobody(stage)
    yield from (Try(*row) for row in bandwidth.rows(stage))
    yield from _changes(stage)
    yield from (Try(*row) for row in edge.rows())


def _addresses(stage: Stage) -> Iterator[Try]:
    """Every kind of address that a service can have."""
    client, other, node = stage.pods["client-1"], stage.pods["client-2"], stage.n1

    def web(host: Host, address: str) -> Callable[[], Seen]:
        return functools.partial(http, host, address, OFTEN)

    yield Try("ClusterIP, 20 requests", "pod client-1", BOTH, web(client, "10.96.0.10"))
    yield Try("the same in IPv6", "pod client-2", BOTH, web(other, "[fd00:96::10]"))
    yield Try("ClusterIP", "node n1 itself", BOTH, web(node, "10.96.0.10"))
    yield Try(
        "whom curl sees there", "pod client-1", "10.96.0.10:80", lambda: peer(client, "10.96.0.10")
    )
    yield Try(
        "DNS over UDP", "pod client-1", "dns-1 and dns-2", lambda: dns(client, "10.96.0.53", OFTEN)
    )
    yield Try(
        "DNS over TCP",
        "pod client-2",
        "dns-1 and dns-2",
        lambda: dns(other, "10.96.0.53", OFTEN, tcp=True),
    )
    yield Try("NodePort, own node", "pod client-1", BOTH, web(client, "192.168.77.11:30080"))
    yield Try("NodePort in IPv6", "pod client-1", BOTH, web(client, "[fd00:77::11]:30080"))
    yield Try("NodePort on 127.0.0.1", "node n1 itself", BOTH, web(node, "127.0.0.1:30080"))
    yield Try("ExternalIP", "pod client-2", BOTH, web(other, "203.0.113.30"))
    yield Try("LoadBalancer IP", "pod client-1", BOTH, web(client, "203.0.113.40"))
    yield Try("LoadBalancer, ipMode Proxy", "pod client-1", NO_ANSWER,
              lambda: http(client, "203.0.113.41"))  # fmt: skip


def _choices(stage: Stage) -> Iterator[Try]:
    """Who gets which pod."""
    client, other, pod = stage.pods["client-1"], stage.pods["client-2"], stage.pods["web-1"]
    yield Try(
        "source range, inside", "pod client-1", BOTH, lambda: http(client, "203.0.113.45", OFTEN)
    )
    yield Try(
        "source range, outside", "pod client-2", NO_ANSWER, lambda: http(other, "203.0.113.45")
    )
    yield Try(
        "session affinity",
        "pod client-1",
        "always the same pod",
        lambda: _sticky(stage),
    )
    yield Try(
        "zone hints", "client-1 in zone-a", "web-1", lambda: http(client, "10.96.0.70", OFTEN)
    )
    yield Try("zone hints", "client-2 in zone-b", "web-2", lambda: http(other, "10.96.0.70", OFTEN))
    yield Try(
        "internal policy Local", "pod client-1", "web-1", lambda: http(client, "10.96.0.60", OFTEN)
    )
    yield Try(
        "Local, no pod on this node", "pod client-2", NO_ANSWER, lambda: http(other, "10.96.0.60")
    )
    yield Try("a pod asks for itself", "pod web-1", "web-1",
              lambda: http(pod, "10.96.0.60", OFTEN))  # fmt: skip


def _outside(stage: Stage) -> Iterator[Try]:
    """From beyond the router: to a pod of the node that is asked, and through it to others."""
    client, pod = stage.cluster.client, stage.pods["client-1"]

    def ask(address: str) -> Callable[[], Seen]:
        return functools.partial(http, client, address, OFTEN)

    yield Try("NodePort of n1", "client outside", BOTH, ask("192.168.77.11:30080"))
    yield Try("hostPort of pod web-1", "client outside", "web-1", ask("192.168.77.11:8088"))
    yield Try("NodePort of n2, IPv6", "client outside", BOTH, ask("[fd00:77::12]:30080"))
    yield Try("LoadBalancer IP, led to n1", "client outside", BOTH, ask("203.0.113.40"))
    yield Try("whom curl sees there", "client outside", "203.0.113.40:80",
              lambda: peer(client, "203.0.113.40"))  # fmt: skip
    yield Try("DNS over UDP, led to n1", "client outside", "dns-1 and dns-2",
              lambda: dns(client, "10.96.0.53", OFTEN))  # fmt: skip
    yield Try("NodePort of another node", "pod client-1", BOTH,
              lambda: http(pod, "192.168.77.12:30080", OFTEN))  # fmt: skip
    yield Try("health check port of n1", "client outside", "200: 1 here",
              lambda: health(client, "192.168.77.11:32400"))  # fmt: skip
    yield Try("health check port of n2, IPv6", "client outside", "503: 0 here",
              lambda: health(client, "[fd00:77::12]:32400"))  # fmt: skip


def _direct(stage: Stage) -> Iterator[Try]:
    """Direct server return: the router leads to n1, the pod is on n2."""
    client = stage.cluster.client
    yield Try("VIP by DSR, whom the pod sees", "client outside", "the client itself",
              lambda: _whom(client, "203.0.113.46"))  # fmt: skip
    yield Try("the same in IPv6", "client outside", "the client itself",
              lambda: _whom(client, "[2001:db8:113::46]"))  # fmt: skip
    yield Try("whom curl sees there", "client outside", "203.0.113.46:80",
              lambda: peer(client, "203.0.113.46"))  # fmt: skip
    yield Try("VIP by DSR, by an IP option", "client outside", "the client itself",
              lambda: _whom(client, "203.0.113.47"))  # fmt: skip
    yield Try("the same in IPv6", "client outside", "the client itself",
              lambda: _whom(client, "[2001:db8:113::47]"))  # fmt: skip
    yield Try("8 MB from it, seen by n1", "device of n1", "not even a tenth",
              lambda: _bypass(stage))  # fmt: skip


def _nobody(stage: Stage) -> Iterator[Try]:
    """Services that nobody serves."""
    client = stage.pods["client-1"]
    yield Try("no endpoints", "pod client-1", REFUSED, lambda: http(client, "10.96.0.90"))
    yield Try("no endpoints, IPv6", "pod client-1", REFUSED, lambda: http(client, "[fd00:96::90]"))
    yield Try("no endpoints, UDP", "node n1 itself", REFUSED, lambda: dns(stage.n1, "10.96.0.90"))
    yield Try("headless service", "tidegate show", "not in the list",
              lambda: _headless(stage.agents[0]))  # fmt: skip


def _changes(stage: Stage) -> Iterator[Try]:
    """What happens while things change, break and die."""
    yield Try(
        "web-2 leaves under load",
        "pod client-1",
        "none failed, then web-1",
        lambda: _leave(stage),
    )
    yield Try(
        "UDP client, its pod replaced", "pod client-2", "web-1, then web-2", lambda: _replace(stage)
    )
    yield Try(
        "manifest that does not parse",
        "tidegate status",
        "is named, web answers",
        lambda: _broken(stage),
    )
    yield Try("agent killed", "pod client-1", BOTH, lambda: _killed(stage))
    yield Try("agent started again", "its log", "0 writes", lambda: _restarted(stage.agents[0]))
    yield Try("maps as they should be", "tidegate verify", "yes on n1, yes on n2",
              lambda: _verified(stage))  # fmt: skip


def end(stage: Stage) -> Iterator[Try]:
    """Takes the product off the nodes."""
    yield Try("agents stopped, nodes cleaned", "tidegate cleanup", f"0 pins left, {NO_ANSWER}",
              lambda: _cleaned(stage))  # fmt: skip


def _whom(client: Host, address: str) -> Seen:
    """Whose address the pod had in its connection."""
    answer = curl(client, f"http://{address}/", timeout=PATIENCE)
    if answer.outcome is not Outcome.OK:
        return Seen(NO_ANSWER, answer.seconds)
    seen = answer.json["client"]
    return Seen("the client itself" if seen in client.addresses else seen, answer.seconds)


def _bypass(stage: Stage) -> Seen:
    """A file goes there by n1 and comes back; how much of the way back led over n1?"""
    url, size = "http://203.0.113.46/files/demo", 8 << 20
    quiet = ("curl", "-q", "--noproxy", "*", "--silent", "--fail", "--max-time", "9")
    given = stage.cluster.claim.directory / "given"
    given.write_bytes(random.randbytes(size))
    got = given.with_name("got")
    stage.cluster.client.run(*quiet, "--upload-file", str(given), url, timeout=12)
    before, started = _received(stage.n1), time.monotonic()
    stage.cluster.client.run(*quiet, "--output", str(got), url, timeout=12)
    seconds, share = time.monotonic() - started, (_received(stage.n1) - before) / size
    if got.read_bytes() != given.read_bytes():
        return Seen("it came back spoilt", seconds)
    return Seen("not even a tenth" if share < 0.1 else f"{share:.0%} of it", seconds)


def _received(node: Node) -> int:
    """Octets that came to the node."""
    (shown,) = json.loads(node.run("ip", "-j", "-s", "link", "show", "eth0").stdout)
    return int(shown["stats64"]["rx"]["bytes"])


def _sticky(stage: Stage) -> Seen:
    seen = http(stage.pods["client-1"], "10.96.0.50", OFTEN)
    return seen._replace(text="always the same pod") if seen.text in BOTH.split(" and ") else seen


def _headless(agent: Agent) -> Seen:
    started = time.monotonic()
    listed = json.loads(agent.tidegate("show", "services", "-o", "json").stdout)
    found = any(row["name"] == "peers" for row in listed) or not listed
    return Seen("in the list" if found else "not in the list", time.monotonic() - started)


def _leave(stage: Stage) -> Seen:
    """Connects go on, one after another, while web-2 is taken out; then it is put back."""
    client, file = stage.pods["client-1"], "web.yaml"
    before = (stage.manifests.directory / file).read_text()
    batches: list[list[dict[str, str]]] = []
    stop = Event()

    def load() -> None:
        while not stop.is_set():
            batches.append(connect(client, "10.96.0.10", 80, count=200))

    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load)
        try:
            until(lambda: bool(batches), "first connects", timeout=5)
            started = time.monotonic()
            stage.edit(file, WEB_2, "")
            seconds, done = time.monotonic() - started, len(batches)
            until(lambda: len(batches) > done + 1, "connects after the change", timeout=5)
        finally:
            stop.set()
        loading.result()
    with stage.applied():
        stage.manifests.text(file, before)
    failed = sum(row["errno"] is not None for rows in batches for row in rows)
    # The last but one may have begun before the change was applied; the last did not.
    pods = sorted({json.loads(row["said"])["pod"] for row in batches[-1] if row["said"]})
    return Seen(f"{failed or 'none'} failed, then {' and '.join(pods)}", seconds)


def _replace(stage: Stage) -> Seen:
    """A client with one connected UDP socket meets the end of its pod, and asks again."""
    talk = Talk(stage.pods["client-2"], "udp", "10.96.0.80", 5000)
    started = time.monotonic()
    stage.edit(
        "echo.yaml",
        "{addresses: [10.244.1.11], nodeName: n1, zone: zone-a}",
        "{addresses: [10.244.2.11], nodeName: n2, zone: zone-b}",
    )
    until(lambda: talk.events.count("answered") > 1, "second answer", timeout=3)
    seconds = time.monotonic() - started
    return Seen(", then ".join(talk.stop()["servers"]), seconds)


def _broken(stage: Stage) -> Seen:
    started = time.monotonic()
    with stage.applied():
        stage.manifests.text("broken.yaml", BROKEN)
    seconds = time.monotonic() - started
    status = stage.agents[0].tidegate("status", check=False).stdout
    named = "is named" if "broken.yaml" in status else "is not named"
    seen = http(stage.pods["client-1"], "10.96.0.10", OFTEN).text
    with stage.applied():
        stage.manifests.remove("broken.yaml")
    return Seen(f"{named}, {'web answers' if seen == BOTH else seen}", seconds)


def _killed(stage: Stage) -> Seen:
    stage.agents[0].kill()
    return http(stage.pods["client-1"], "10.96.0.10", OFTEN)


def _restarted(agent: Agent) -> Seen:
    started = time.monotonic()
    agent.start()
    seconds = time.monotonic() - started
    found = re.search(r"synced: .* (\d+ writes)", agent.log)
    return Seen(found[1] if found else agent.log, seconds)


def _verified(stage: Stage) -> Seen:
    started = time.monotonic()
    said = []
    for agent in stage.agents:
        done = agent.tidegate("verify", check=False)
        said.append(f"{'no' if done.returncode else 'yes'} on {agent.node.name}")
    return Seen(", ".join(said), time.monotonic() - started)


def _cleaned(stage: Stage) -> Seen:
    started = time.monotonic()
    for agent in stage.agents:
        agent.stop()
        agent.tidegate("cleanup")
    seconds = time.monotonic() - started
    left = sum(path.is_file() for agent in stage.agents for path in agent.bpffs.rglob("*"))
    seen = http(stage.pods["client-1"], "10.96.0.10")
    return Seen(f"{left} pins left, {seen.text}", seconds)
