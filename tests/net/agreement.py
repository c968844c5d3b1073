"""Does what a probe saw agree with what explain said? Pure: the rules of `tests.net.witness`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from lb.address import parse
from tests.bed.watching import Probe

Answer = dict[str, Any]
CLOSED = {9}
"""Ports that no pod listens on (`tests.net.test_outside_icmp`)."""
OUTSIDER = "client"
"""Who gets what leaves the cluster."""


def disagreement(
    probe: Probe,
    answer: Answer,
    names: Mapping[str, str],
    counted: Counter[str],
    *,
    is_first: bool,
) -> str:
    """What does not agree; "": nothing.

    `names` of hosts by address; `counted`: reasons that met somebody since the probe began;
    `is_first`: explain chose nothing yet for this probe.
    """
    if answer["verdict"] == "pass":
        return _passed(probe, names)
    if answer["verdict"] in ("drop", "reject"):
        return _ended(probe, answer, counted)
    return _met(probe, answer, names, is_first=is_first)


def _passed(probe: Probe, names: Mapping[str, str]) -> str:
    """Whoever has the address answers, or refuses; or there is silence."""
    owner = names.get(probe.address, "")
    if ip_address(probe.address).is_loopback:
        owner = probe.host.name
    server = _server(probe)
    if not server:
        is_odd = not owner and probe.errno == "ECONNREFUSED"
        return "it passes, and nobody has the address, but it was refused" if is_odd else ""
    if server == owner or _is_untouched(probe) or (not owner and server == OUTSIDER):
        return ""
    return f"it passes, but {server} answered in place of {owner or 'nobody'}"


def _ended(probe: Probe, answer: Answer, counted: Counter[str]) -> str:
    wanted = "ECONNREFUSED" if answer["verdict"] == "reject" else "ETIMEDOUT"
    if probe.errno != wanted:
        return f"{wanted} and not {probe.errno or 'an answer'}"
    return "" if counted[answer["reason"]] else f"{answer['reason']} was not counted: {counted}"


def _met(probe: Probe, answer: Answer, names: Mapping[str, str], *, is_first: bool) -> str:
    server = _server(probe)
    if not server:
        # Who was led to a backend may find that nobody listens there.
        is_closed = int(answer["backend"].rpartition(":")[2]) in CLOSED
        is_told = is_closed and probe.errno == "ECONNREFUSED"
        return "" if is_told else f"nobody answered: {probe.errno}"
    is_known = answer["via"] != "socket" and probe.source_port
    # What is remembered from the second row on is explain's own random choice of the first.
    is_known = is_known or (answer.get("remembered") and is_first)
    allowed = [answer["backend"]] if is_known else answer["candidates"]
    if server not in {names.get(host_of(one)) for one in allowed}:
        return f"{server} answered, and not one of {allowed}"
    seen, sent = json.loads(probe.said).get("client", ""), answer.get("sent", {})
    if not seen or not sent:
        return ""
    source = answer["source"] if answer["mode"] == "dsr" else sent["source"]
    return "" if parse(host_of(source)) == parse(seen) else f"{server} saw {seen}, and not {source}"


def host_of(place: str) -> str:
    """The address of ADDRESS:PORT."""
    return place.rpartition(":")[0].strip("[]")


def _server(probe: Probe) -> str:
    """Who answered; "": nobody."""
    return "" if probe.errno or not probe.said else str(json.loads(probe.said)["pod"])


def _is_untouched(probe: Probe) -> bool:
    """Was the server asked by the very address that the client named?"""
    said = json.loads(probe.said)
    return bool((said.get("local"), said.get("local_port")) == (probe.address, probe.port))


def is_telling(probe: Probe) -> bool:
    """Did a server of the bed answer, which says who it is, or nobody?"""
    return bool(probe.errno) or '"pod"' in probe.said
