"""What kube-proxy left in iptables, and the text that takes exactly that away.

Pure: from the output of `iptables-save` to the input of `iptables-restore --noflush`, which
applies each table in one step. What kubelet and others made stays: their chains, their rules, and
any chain of kube-proxy's that a rule of theirs still leads to, with all that one needs itself.

The names are those of kube-proxy 1.18 to 1.36 (pkg/proxy/iptables, pkg/proxy/ipvs). Kubelet's are
KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT and KUBE-MARK-DROP.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NAMES = {
    "nat": {
        "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ",
        "KUBE-PROXY-CANARY", "KUBE-LOAD-BALANCER", "KUBE-NODE-PORT",
    },
    "filter": {
        "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS",
        "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY", "KUBE-NODE-PORT",
        "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
    },
    "mangle": {"KUBE-PROXY-CANARY"},
}  # fmt: skip
"""By table, in the order in which they go: what sets marks, then what acts on them."""
_SETS = (
    "LOOP-BACK", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL", "LOAD-BALANCER",
    "LOAD-BALANCER-FW", "LOAD-BALANCER-LOCAL", "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR", "NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP", "NODE-PORT-SCTP", "NODE-PORT-LOCAL-SCTP", "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH", "HEALTH-CHECK-NODE-PORT", "IPVS-IPS",
)  # fmt: skip
SETS = frozenset(f"{prefix}{name}"[:31] for prefix in ("KUBE-", "KUBE-6-") for name in _SETS)
"""Its sets of ipset in mode ipvs, cut to what a name may have (IPSET_MAXNAMELEN); others' names
begin with KUBE-, too (kube-router)."""
_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")
"""One chain for each service, endpoint or firewall; in the table nat."""
_PAIR = {"KUBE-MARK-MASQ": "KUBE-POSTROUTING"}
"""Whoever sets the mark counts on the chain that acts on it."""


class Rule(NamedTuple):
    """A line `-A CHAIN ...`; `target` is where it jumps, "" for nowhere."""

    chain: str
    text: str
    target: str


class Table(NamedTuple):
    """One table of the output. `built_in` are the chains where packets enter."""

    name: str
    chains: tuple[str, ...]
    built_in: frozenset[str]
    rules: tuple[Rule, ...]


def removal(saved: str) -> str:
    """The input that removes what kube-proxy left; "" where it left nothing."""
    found = {table.name: table for table in _tables(saved)}
    return "".join(_removal(found[name]) for name in _NAMES if name in found)


def _tables(saved: str) -> Iterator[Table]:
    name = ""
    chains: list[str] = []
    built_in: set[str] = set()
    rules: list[Rule] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            name, chains, built_in, rules = line[1:].strip(), [], set(), []
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            chains.append(chain)
            if policy != "-":
                built_in.add(chain)
        elif line.startswith("-A "):
            rules.append(_rule(line))
        elif line == "COMMIT":
            yield Table(name, tuple(chains), frozenset(built_in), tuple(rules))


def _rule(line: str) -> Rule:
    words = shlex.split(line)
    targets = [b for a, b in itertools.pairwise(words) if a in ("-j", "-g")]
    return Rule(words[1], line.removeprefix("-A "), targets[-1] if targets else "")


def _is_theirs(table: str, chain: str) -> bool:
    return chain in _NAMES[table] or (table == "nat" and chain.startswith(_PREFIXES))


def _removal(table: Table) -> str:
    theirs = {chain for chain in table.chains if _is_theirs(table.name, chain)}
    kept = _kept(table, theirs)
    gone = [chain for chain in table.chains if chain in theirs - kept]
    jumps = [rule.text for rule in table.rules if rule.target in gone and rule.chain not in theirs]
    if not gone:
        return ""
    lines = [
        f"*{table.name}",
        *(f":{chain} - [0:0]" for chain in gone),  # to name a chain empties it
        *(f"-D {text}" for text in jumps),
        *(f"-X {chain}" for chain in gone),
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def _kept(table: Table, theirs: set[str]) -> set[str]:
    """What others' own chains lead to; a jump from a built-in chain is kube-proxy's own."""
    others = (rule for rule in table.rules if rule.chain not in theirs | table.built_in)
    waiting = [rule.target for rule in others if rule.target in theirs]
    kept: set[str] = set()
    while waiting:
        chain = waiting.pop()
        if chain in kept:
            continue
        kept.add(chain)
        waiting += _needed(chain, table.rules, theirs)
    return kept


def _needed(chain: str, rules: Iterable[Rule], theirs: set[str]) -> list[str]:
    targets = [rule.target for rule in rules if rule.chain == chain]
    return [one for one in (*targets, _PAIR.get(chain, "")) if one in theirs]
