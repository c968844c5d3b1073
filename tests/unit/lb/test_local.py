"""Whose packets come from pods: the four modes of detectLocalMode, as rows."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import Address, Family, Prefix, family, parse, parse_prefix
from lb.local import Detection, Local, Mode, local

POD, OTHER, POD6, OUTSIDE = map(parse, ("10.244.1.5", "10.244.2.5", "fd00:244::5", "198.51.100.9"))


def prefixes(text: str) -> tuple[Prefix, ...]:
    """Of `10.0.0.0/8 fd00::/8`."""
    return tuple(map(parse_prefix, text.split()))


class Row(NamedTuple):
    """`pods`: the sources that are pods' when they come by `device`; `knows`: the families."""

    mode: Mode
    cluster: str = ""
    node: str = ""
    name: str = ""
    device: str = "eth0"
    pods: tuple[Address, ...] = ()
    knows: tuple[Family, ...] = ()


BOTH = (Family.IPV4, Family.IPV6)
ALL = (POD, OTHER, POD6, OUTSIDE)
ROWS = [
    Row(Mode.CLUSTER_CIDR),
    Row(Mode.CLUSTER_CIDR, "10.244.0.0/16", pods=(POD, OTHER), knows=BOTH[:1]),
    Row(Mode.CLUSTER_CIDR, "fd00:244::/32", pods=(POD6,), knows=BOTH[1:]),
    Row(Mode.CLUSTER_CIDR, "10.244.0.0/16 fd00:244::/32", pods=(POD, OTHER, POD6), knows=BOTH),
    Row(Mode.CLUSTER_CIDR, "fd00:244::/32 10.244.0.0/16", pods=(POD, OTHER, POD6), knows=BOTH),
    Row(Mode.CLUSTER_CIDR, "10.244.1.0/24 10.244.2.0/24", pods=(POD,), knows=BOTH[:1]),
    Row(Mode.CLUSTER_CIDR, node="10.244.1.0/24"),
    Row(Mode.NODE_CIDR, "10.244.0.0/16"),
    Row(Mode.NODE_CIDR, "10.9.0.0/16", "10.244.1.0/24", pods=(POD,), knows=BOTH[:1]),
    Row(Mode.NODE_CIDR, node="10.244.1.0/24 fd00:244::/32", pods=(POD, POD6), knows=BOTH),
    Row(Mode.BRIDGE, "10.244.0.0/16", name="cni0", knows=BOTH),
    Row(Mode.BRIDGE, name="cni0", device="cni0", pods=ALL, knows=BOTH),
    Row(Mode.BRIDGE, name="cni0", device="cni01", knows=BOTH),
    Row(Mode.PREFIX, name="veth", device="veth12", pods=ALL, knows=BOTH),
    Row(Mode.PREFIX, name="veth", device="veth", pods=ALL, knows=BOTH),
    Row(Mode.PREFIX, name="veth", device="my-veth", knows=BOTH),
]


@pytest.mark.parametrize("row", ROWS)
def test_who_is_a_pod(row: Row) -> None:
    """By the first prefix of the family, or by the device alone; nobody where neither is known."""
    detection = Detection(row.mode, prefixes(row.cluster), row.name)
    found = local(detection, prefixes(row.node))
    assert tuple(one for one in ALL if found.is_pod(one, row.device)) == row.pods
    assert tuple(one for one in BOTH if found.knows(one)) == row.knows


def test_which_devices_bring_pods() -> None:
    """A name is whole in one mode, and a beginning in the other; else addresses decide."""
    present = {"eth0", "cni0", "cni01", "veth1"}
    assert local(Detection(Mode.BRIDGE, device="cni0"), ()).devices(present) == {"cni0"}
    assert local(Detection(Mode.PREFIX, device="cni"), ()).devices(present) == {"cni0", "cni01"}
    assert local(Detection(cluster_cidrs=prefixes("::/0")), ()).devices(present) == set()


@given(
    st.lists(st.sampled_from(prefixes("10.0.0.0/8 10.244.0.0/16 fd00::/8 ::/0")), max_size=4),
    st.sampled_from(ALL),
)
def test_a_pod_is_known_only_in_a_known_family(cidrs: list[Prefix], source: Address) -> None:
    """Nobody is a pod where pods cannot be told from others."""
    found = local(Detection(cluster_cidrs=tuple(cidrs)), ())
    assert not found.is_pod(source, "eth0") or found.knows(family(source))


def test_the_rule_says_what_it_is() -> None:
    """For the log, in a few words."""
    assert str(local(Detection(cluster_cidrs=prefixes("10.0.0.0/8 fd00::/8")), ())) == (
        "10.0.0.0/8, fd00::/8"
    )
    assert str(local(Detection(Mode.PREFIX, device="veth"), ())) == "veth*"
    assert str(Local()) == "not known by their addresses"
