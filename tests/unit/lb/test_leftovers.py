"""Exactly kube-proxy's rules go; kubelet's, the CNI's and whatever they lead to stay."""

from __future__ import annotations

from lb.leftovers import removal
from tests.bed.kubeproxy import iptables, kubelet_and_cni, saved

IPTABLES, KUBELET_AND_CNI = iptables("ipv4"), kubelet_and_cni("ipv4")


def lines(text: str) -> dict[str, list[str]]:
    """The lines of an input, by table."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            found[line[1:]] = []
        else:
            found[list(found)[-1]].append(line)
    return found


def test_nothing_left_nothing_to_do() -> None:
    """Kubelet's and the CNI's chains alone are no reason for anything; neither is no output."""
    assert removal(saved(KUBELET_AND_CNI)) == ""
    assert removal("") == ""


def test_each_chain_is_emptied_and_removed_and_no_jump_is_left() -> None:
    """All of kube-proxy's, with jumps from built-in chains; in the order nat, filter, mangle."""
    found = lines(removal(saved(IPTABLES)))
    assert list(found) == ["nat", "filter", "mangle"]
    for name, table in IPTABLES.items():
        chains = {line[1:].split()[0] for line in table if line.startswith(":KUBE-")}
        assert {line[3:] for line in found[name] if line.startswith("-X ")} == chains
        assert {line[1:].split()[0] for line in found[name] if line[0] == ":"} == chains
        jumps = {
            line[3:] for line in table
            if line.startswith("-A ") and not line.startswith("-A KUBE-")
        }  # fmt: skip
        assert {line[3:] for line in found[name] if line.startswith("-D ")} == jumps
        assert found[name][-1] == "COMMIT"


def test_others_chains_are_never_named() -> None:
    """With everything in the tables, only kube-proxy's chains are touched."""
    both = {name: [*KUBELET_AND_CNI[name], *IPTABLES[name]] for name in IPTABLES}
    assert removal(saved(both)) == removal(saved(IPTABLES))


def test_what_others_lead_to_stays_and_works() -> None:
    """Portmap's externalSetMarkChain is KUBE-MARK-MASQ: the mark and what acts on it stay."""
    table = [
        *IPTABLES["nat"], ":CNI-HOSTPORT-SETMARK - [0:0]",
        '-A CNI-HOSTPORT-SETMARK -m comment --comment "a -j KUBE-SERVICES" -j KUBE-MARK-MASQ',
    ]  # fmt: skip
    gone = lines(removal(saved({"nat": table})))["nat"]
    assert not [line for line in gone if "KUBE-MARK-MASQ" in line or "KUBE-POSTROUTING" in line]
    assert "-X KUBE-SERVICES" in gone
    assert "-X KUBE-NODEPORTS" in gone
