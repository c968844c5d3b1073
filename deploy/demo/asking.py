"""curl and dig, and what was seen in a few words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from tests.bed import WHOAMI, Answer, Host, Outcome, curl, dig

NO_ANSWER = "no answer"
REFUSED = "refused at once"
PATIENCE = 1
"""Seconds until silence counts as no answer."""
AT_ONCE = 0.5
"""Seconds; a refusal that took longer is a time-out by another name."""
OFTEN = 20
"""Requests after which, of two pods that take turns by chance, both have been seen."""


class Seen(NamedTuple):
    """What came back, and the seconds of the slowest answer."""

    text: str
    seconds: float


def http(host: Host, address: str, times: int = 1) -> Seen:
    """GET http://`address`/: the pods that answered."""
    return _seen(curl(host, f"http://{address}/", timeout=PATIENCE) for _ in range(times))


def dns(host: Host, address: str, times: int = 1, *, tcp: bool = False) -> Seen:
    """Ask a name server for its own name."""
    return _seen(dig(host, address, 53, WHOAMI, tcp=tcp, timeout=PATIENCE) for _ in range(times))


def peer(host: Host, address: str) -> Seen:
    """Whom curl thinks it talks to, by getpeername(2)."""
    done = host.run(
        "curl", "-q", "--noproxy", "*", "--silent", "--output", "/dev/null",
        "--max-time", str(PATIENCE),
        "--write-out", "%{remote_ip}:%{remote_port} %{time_total}", f"http://{address}/",
    )  # fmt: skip
    text, _, seconds = done.stdout.partition(" ")
    return Seen(text, float(seconds))


def health(host: Host, address: str) -> Seen:
    """What a load balancer's health check is told: the code, and how many endpoints are there."""
    done = host.run(
        "curl", "-q", "--noproxy", "*", "--silent", "--max-time", str(PATIENCE),
        "--write-out", "\n%{http_code} %{time_total}", f"http://{address}/",
    )  # fmt: skip
    body, _, numbers = done.stdout.rpartition("\n")
    code, seconds = numbers.split()
    return Seen(f"{code}: {json.loads(body)['localEndpoints']} here", float(seconds))


def _seen(answers: Iterable[Answer]) -> Seen:
    listed = list(answers)
    return Seen(
        " and ".join(sorted({_in_words(answer) for answer in listed})),
        max(answer.seconds for answer in listed),
    )


def _in_words(answer: Answer) -> str:
    match answer.outcome:
        case Outcome.OK:
            return str(answer.json["pod"]) if answer.text.startswith("{") else answer.text
        case Outcome.TIMEOUT:
            return NO_ANSWER
        case Outcome.REFUSED if answer.seconds < AT_ONCE:
            return REFUSED
        case _:
            return answer.text.splitlines()[-1] if answer.text else "an empty answer"
