"""The masquerade matrix is whole, follows from few rules, and names why Tidegate's is another."""

from __future__ import annotations

from itertools import product

import pytest

from tests.matrix import CONFIGURATIONS, ROWS, WHY, Flow, Row

IDS = [" ".join(row.flow) for row in ROWS]


def by_rule(flow: Flow, configuration: str) -> str:
    """kube-proxy's outcome, from its rules and not from a table."""
    detector, everything = "no detector" not in configuration, "All" in configuration
    source, frontend, policy = flow
    if frontend == "cluster":
        masqueraded = everything or (detector and source != "pod")
        return ("L" if policy == "internal" else "A") + ("M" if masqueraded else "-")
    if policy != "external":
        return "AM"
    if source == "node":
        return "AM"
    return "A-" if source == "pod" and detector else "L-"


def test_every_flow_has_a_row() -> None:
    """Three sources, three frontends, three policies: each once."""
    flows = [row.flow for row in ROWS]
    assert sorted(flows) == sorted(
        Flow(*one)
        for one in product(
            ("pod", "node", "outside"),
            ("cluster", "node_port", "balancer"),
            ("", "internal", "external"),
        )
    )


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_kube_proxys_columns_follow_its_rules(row: Row) -> None:
    """The table and the rules say the same of it."""
    assert row.kube_proxy == tuple(by_rule(row.flow, one) for one in CONFIGURATIONS)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_whom_a_flow_meets_is_kube_proxys_own_choice(row: Row) -> None:
    """Only where kube-proxy does not know its pods, and then they meet more endpoints."""
    for configuration, theirs in zip(CONFIGURATIONS, row.kube_proxy, strict=True):
        if theirs[0] != row.tidegate[0]:
            assert (row.flow.source, row.why) == ("pod", ("known",))
            assert (theirs[0], row.tidegate[0]) == ("L", "A")
            assert "no detector" in configuration


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_what_differs_says_why(row: Row) -> None:
    """A reason stands where an outcome is another, and nowhere else."""
    assert bool(row.why) == any(one != row.tidegate for one in row.kube_proxy)
    assert set(row.why) <= WHY.keys()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_nobody_is_hidden_whom_kube_proxy_shows(row: Row) -> None:
    """With pods known, no endpoint sees the node where kube-proxy would show the client."""
    usual = row.kube_proxy[0]
    assert usual[1] == "M" or row.tidegate[1] == "-"
