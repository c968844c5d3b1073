"""What a user would type, curl and dig, with the outcome told apart; and what those cannot show.

The probes are scripts in `probes/`; each says at its top what it prints.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from tests.bed.host import PROBES, Host
from tests.bed.process import until
from tests.bed.watching import Probe, watched


class Outcome(Enum):
    """How a request ended."""

    OK = "ok"
    REFUSED = "refused"
    """At once: RST or ICMP port unreachable."""
    TIMEOUT = "timeout"
    """No answer at all in the time given."""
    OTHER = "other"


ERRNO = {
    Outcome.OK: "", Outcome.REFUSED: "ECONNREFUSED", Outcome.TIMEOUT: "ETIMEDOUT",
    Outcome.OTHER: "OTHER",
}  # fmt: skip
"""What a socket would have said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `text` is the body or the record, or the program's complaint."""

    outcome: Outcome
    text: str
    seconds: float

    @property
    def json(self) -> Any:
        """The text as JSON."""
        return json.loads(self.text)


def curl(host: Host, url: str, *options: str, timeout: float = 2.0) -> Answer:
    """GET; `timeout` in seconds. IPv6 addresses stand in brackets."""
    with watched(host) as saw:
        done = host.run(
            "curl", "-q", "--noproxy", "*", "--globoff", "--silent", "--verbose",
            "--max-time", str(timeout), "--write-out", "\n%{local_port} %{time_total}", *options,
            url, timeout=timeout + 10, check=False,
        )  # fmt: skip
        body, _, numbers = done.stdout.rpartition("\n")
        local, _, seconds = numbers.partition(" ")
        outcome = Outcome.TIMEOUT if done.returncode == 28 else _failure(done.stderr)
        if done.returncode == 0:
            outcome = Outcome.OK
        where = urlsplit(url)
        one = Probe(host, "TCP", where.hostname or "", where.port or 80)
        one = one._replace(source_port=max(0, int(local)), errno=ERRNO[outcome], said=body.strip())
        saw(one)
    text = body if outcome is Outcome.OK else done.stderr
    return Answer(outcome, text.strip(), float(seconds))


def dig(
    host: Host,
    server: str,
    port: int,
    name: str,
    kind: str = "TXT",
    *,
    tcp: bool = False,
    timeout: int = 2,
) -> Answer:
    """Ask a name server once; `timeout` in whole seconds, as dig has it."""
    with watched(host) as saw:
        started = time.monotonic()
        done = host.run(
            "dig", f"@{server}", "-p", str(port), name, kind, "+short", "+tries=1",
            f"+timeout={timeout}", "+tcp" if tcp else "+notcp",
            timeout=timeout + 10, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - started
        text = done.stdout.strip()
        outcome = _failure(text) if done.returncode else Outcome.OK
        text = text.strip('"') if outcome is Outcome.OK else text
        one = Probe(host, "TCP" if tcp else "UDP", server, port)
        saw(one._replace(errno=ERRNO[outcome], said=json.dumps({"pod": text})))
    return Answer(outcome, text, seconds)


def connect(host: Host, address: str, port: int, *options: str, count: int = 1) -> list[Any]:
    """TCP connects, one after another, as their sockets see them: `probes/connect.py`."""
    where = (address, str(port), str(count))
    with watched(host) as saw:
        rows: list[Any] = host.python(PROBES / "connect.py", *options, *where, timeout=60)
        for row in rows:
            saw(_probe(host, "TCP", (address, port), row, options))
    return rows


def datagrams(host: Host, *targets: tuple[str, int], options: Iterable[str] = ()) -> list[Any]:
    """Datagrams from one socket to each target in order: `probes/datagrams.py`."""
    where = [str(part) for target in targets for part in target]
    options = tuple(options)
    with watched(host) as saw:
        rows: list[Any] = host.python(PROBES / "datagrams.py", *options, *where, timeout=60)
        for target, row in zip(targets, rows, strict=True):
            saw(_probe(host, "UDP", target, row, options))
    return rows


def _probe(
    host: Host, protocol: str, to: tuple[str, int], row: Any, options: Sequence[str]
) -> Probe:
    source = options[options.index("--source") + 1] if "--source" in options else ""
    port = row["local"][1] if row["local"] else 0
    return Probe(host, protocol, *to, source, port, row["errno"] or "", row["said"] or "")


def ping(host: Host, address: str, *options: str, count: int = 1) -> list[Any]:
    """Echo requests, one after another: `probes/ping.py`."""
    rows: list[Any] = host.python(PROBES / "ping.py", *options, address, str(count), timeout=60)
    return rows


class Talk:
    """A client that goes on asking: to `line_echo` over tcp, or `udp_echo` over udp.

    Had its first answer when this returns. It keeps one connection as long as nothing fails.
    """

    def __init__(self, host: Host, protocol: str, address: str, port: int, *options: str) -> None:
        self._process = host.spawn(
            sys.executable, "-IS", str(PROBES / "talk.py"), protocol, address, str(port), *options,
            ready=lambda process: "answered" in process.output,
        )  # fmt: skip

    @property
    def events(self) -> list[str]:
        """What happened so far, in order: `answered`, and the errno of each failure."""
        return self._process.output.splitlines()

    def await_answer(self, *, timeout: float = 10.0) -> None:
        """Until another answer came; raises BedError after `timeout` seconds."""
        before = self.events.count("answered")
        self._process.send(signal.SIGUSR1)
        until(
            lambda: self.events.count("answered") > before, "answer",
            timeout=timeout, process=self._process,
        )  # fmt: skip

    def stop(self) -> Any:
        """End it; what it saw, as `probes/talk.py` says."""
        self._process.end()
        return json.loads(self.events[-1])


def _failure(complaint: str) -> Outcome:
    lower = complaint.lower()
    if "refused" in lower:
        return Outcome.REFUSED
    return Outcome.TIMEOUT if "timed out" in lower else Outcome.OTHER
