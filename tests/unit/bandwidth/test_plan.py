"""From pods to limits, and what a malformed value does."""

from __future__ import annotations

import pytest

from bandwidth.annotations import Direction
from bandwidth.plan import Owner, Pod, cgroup_key, is_cgroup, owner_of, plan
from bpf.layout import LimitState

EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS
WEB = Owner("default", "web", EGRESS)
ADDRESS = bytes(16)


def pod(host: int | None = None, addresses: tuple[bytes, ...] = (ADDRESS,), **asked: str) -> Pod:
    """The pod default/web; `host`: it is on the host's network, in this cgroup."""
    texts = {Direction(name): text for name, text in asked.items()}
    return Pod("default", "web", addresses, texts, host is not None, host or 0)


def test_each_direction_is_a_limit_of_its_own() -> None:
    """With the rate in bits per second and all addresses of the pod."""
    found = plan([pod(egress="10M", ingress="1G")], {}).limits
    assert {owner.direction: one.bits for owner, one in found.items()} == {
        EGRESS: 10_000_000, INGRESS: 1_000_000_000,
    }  # fmt: skip
    assert found[WEB].addresses == (ADDRESS,)


def test_without_annotation_there_is_no_limit() -> None:
    """Also when there was one before."""
    assert plan([pod()], {WEB: 5}) == ({}, {})


@pytest.mark.parametrize("text", ["10Mbit", "", "0", "-5M", "2P"])
def test_a_malformed_value_leaves_the_last_valid_one(text: str) -> None:
    """In force, and named."""
    one = plan([pod(egress=text)], {WEB: 7000}).limits[WEB]
    assert one.bits == 7000
    assert one.malformed.startswith("kubernetes.io/egress-bandwidth")


def test_a_value_that_never_was_valid_is_named() -> None:
    """There is no limit to leave in force."""
    found = plan([pod(egress="lots")], {})
    assert found.limits == {}
    assert "lots" in found.unlimited[WEB]


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (pod(host=0, egress="10M"), LimitState.HOST_NETWORK),
        (pod(host=4711, egress="10M"), None),
        (pod(addresses=(), egress="10M"), LimitState.NO_ADDRESS),
        (pod(egress="10M"), None),
    ],
)
def test_what_no_node_can_enforce(one: Pod, fault: LimitState | None) -> None:
    """The host's network without a cgroup, and a pod that has no address yet."""
    assert plan([one], {}).limits[WEB].fault == fault


def test_on_the_hosts_network_a_cgroup_stands_for_the_address() -> None:
    """The node's own addresses lead to no limit; what the pod receives cannot be told apart."""
    found = plan([pod(host=4711, egress="10M", ingress="10M")], {}).limits
    assert found[WEB].addresses == (cgroup_key(4711),)
    assert is_cgroup(cgroup_key(4711))
    assert not is_cgroup(ADDRESS)
    assert found[WEB._replace(direction=INGRESS)].fault is LimitState.HOST_NETWORK


def test_owners_are_read_back_from_their_names() -> None:
    """What lies in the tables tells the next agent whose a limit is."""
    assert owner_of(str(WEB)) == WEB
    with pytest.raises(ValueError, match="not enough values"):
        owner_of("web/egress")
