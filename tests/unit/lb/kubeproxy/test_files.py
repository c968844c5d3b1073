"""Configuration files: the shapes that installers write start as they are; what is odd is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lb.address import parse, parse_prefix
from lb.errors import BadInput
from lb.kubeproxy import encode
from lb.kubeproxy.decode import Document, read
from lb.kubeproxy.effective import Effective, effective
from lb.kubeproxy.settings import settings
from lb.kubeproxy.v1alpha1 import Configuration, defaulted
from lb.local import Detection, Mode

FILES = Path(__file__).parent / "files"
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def load(text: str, **flags: Any) -> Effective:
    """A file's text with flags, as the agent takes both."""
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    return effective(given, read(text.encode()), "kp.yaml")


def shipped(name: str) -> Effective:
    """One of the files here."""
    return load((FILES / name).read_text())


def test_kubeadm() -> None:
    """Every field that kubeadm writes is known, and its empty ones take kube-proxy's defaults."""
    found = shipped("kubeadm.yaml")
    assert found.lines == ()
    part = settings(found.configuration)
    assert part["kubeconfig"] == "/var/lib/kube-proxy/kubeconfig.conf"
    assert part["detection"] == Detection(Mode.CLUSTER_CIDR, (parse_prefix("10.244.0.0/16"),))
    assert (part["healthz"], part["metrics"]) == (("0.0.0.0", 10256), ("127.0.0.1", 10249))
    assert (part["proxy_mode"], part["nodeport_addresses"]) == ("iptables", ())
    assert (part["localhost_nodeports"], part["masquerade_all"]) == (True, False)
    assert (part["stale_seconds"], part["bind_address"]) == (60.0, None)
    assert found.configuration.oom_score_adj == -999


def test_kubeadm_of_old() -> None:
    """Fields that are gone are said and left alone; IPv6 listeners follow the bind address."""
    found = shipped("kubeadm-old.yaml")
    assert found.lines == (
        "--config kp.yaml: udpIdleTimeout: no such field",
        "--config kp.yaml: resourceContainer: no such field",
        "ipvs.strictARP: IPVS is not used",
        "featureGates.SupportIPVSProxyMode: no such feature gate is known here; left alone",
    )
    part = settings(found.configuration)
    assert (part["healthz"], part["metrics"]) == (("::", 10256), ("::1", 10249))
    assert len(part["detection"].cluster_cidrs) == 2


def test_kind() -> None:
    """Conntrack that is to be left alone needs no word; nftables mode has its own node ports."""
    found = shipped("kind.yaml")
    assert found.lines == ()
    part = settings(found.configuration)
    assert (part["proxy_mode"], part["nodeport_addresses"]) == ("nftables", ("primary",))


def test_k3s() -> None:
    """k3s gives flags only, an address without its port among them."""
    found = effective(
        {
            "cluster-cidr": "10.42.0.0/16", "conntrack-max-per-core": 0,
            "conntrack-tcp-timeout-close-wait": "0s", "conntrack-tcp-timeout-established": "0s",
            "healthz-bind-address": "127.0.0.1", "proxy-mode": "iptables",
            "kubeconfig": "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig",
        },
        None,
    )  # fmt: skip
    assert found.lines == ()
    assert settings(found.configuration)["healthz"] == ("127.0.0.1", 10256)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mode: ipvs\nmode: iptables\n", "mode: stands twice, the last one counts"),
        ("nope: 1\n", "nope: no such field"),
        ("iptables: {nope: 1}\n", "iptables.nope: no such field"),
        ("logging: {vmodule: [{nope: 1}]}\n", "logging.vmodule[0].nope: no such field"),
        ("ipvs: {scheduler: a, scheduler: rr}\n", "ipvs.scheduler: stands twice"),
    ],
)
def test_what_is_no_reason_not_to_start(text: str, line: str) -> None:
    """What strict decoding refuses is a warning; the rest of the file counts."""
    found = load(HEAD + "clusterCIDR: 10.0.0.0/8\n" + text)
    assert any(line in one for one in found.lines)
    assert found.configuration.cluster_cidr == "10.0.0.0/8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text", "is no configuration"),
        ("", "is no configuration"),
        ("kind: KubeProxyConfiguration", "apiVersion is None"),
        (HEAD.replace("v1alpha1", "v1"), "only kubeproxy.config.k8s.io/v1alpha1"),
        (HEAD.replace("KubeProxy", "Kubelet"), "only KubeProxyConfiguration"),
        (HEAD + "oomScoreAdj: high", "oomScoreAdj: Expected `int`"),
        (HEAD + "iptables: {syncPeriod: 30}", "iptables.syncPeriod: 30 is not a duration"),
        (HEAD + "iptables: {syncPeriod: 30x}", "iptables.syncPeriod: '30x' is not a duration"),
        (HEAD + "nodePortAddresses: 10.0.0.0/8", "nodePortAddresses: Expected `array`"),
        (HEAD + "featureGates: {A: maybe}", "Expected `bool`"),
    ],
)
def test_what_is_no_configuration(text: str, message: str) -> None:
    """One line, with the file and the field."""
    with pytest.raises(BadInput, match=r"--config kp\.yaml: ") as caught:
        load(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["mode: [", "a: b: c", "\t", "{", "&a [*a, *b]", "\x00"])
def test_what_does_not_parse(text: str) -> None:
    """One line that says where."""
    with pytest.raises(BadInput, match=r"^(line \d+: |does not parse: )[^\n]+$"):
        read(text.encode())


def test_the_file_wins_over_flags_but_for_logs() -> None:
    """Flags for fields of the file count for nothing, and are named; those for logs win."""
    found = load(
        HEAD + "mode: nftables\nlogging: {verbosity: 2, vmodule: [{filePattern: a, verbosity: 3}]}",
        proxy_mode="ipvs", cluster_cidr="10.0.0.0/8", healthz_port=0, v=0, vmodule="b=4",
    )  # fmt: skip
    assert found.configuration.mode == "nftables"
    assert found.configuration.cluster_cidr == ""
    assert found.configuration.logging.verbosity == 0
    assert [one.file_pattern for one in found.configuration.logging.vmodule] == ["b", "a"]
    assert found.lines[0] == (
        "--cluster-cidr, --healthz-port, --proxy-mode: --config kp.yaml stands in place of them"
    )


def test_what_is_written_is_read_back() -> None:
    """`--write-config-to` writes a file that means the same."""
    before = shipped("kubeadm-old.yaml").configuration
    assert load(encode.text(before)).configuration == before
    assert yaml.safe_load(encode.text(before))["apiVersion"].endswith("/v1alpha1")


def test_defaults_settle_at_once() -> None:
    """Defaults of defaults change nothing."""
    once = defaulted(Configuration())
    assert defaulted(once) == once


def test_a_bind_address_is_the_nodes_own() -> None:
    """An address overrides the node's; `0.0.0.0` and `::` say nothing."""
    assert settings(load(HEAD + "bindAddress: 192.0.2.1").configuration)["bind_address"] == parse(
        "192.0.2.1"
    )
    for any_address in ("0.0.0.0", "'::'"):
        found = load(HEAD + f"bindAddress: {any_address}")
        assert settings(found.configuration)["bind_address"] is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*encode.plain(Configuration()), "x"]) | st.text(max_size=4), inner
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_no_file_breaks_the_agent(value: object) -> None:
    """Whatever a file holds, the answer is a configuration or one line."""
    head = yaml.safe_load(HEAD)
    document = Document(head | value if isinstance(value, dict) else value, ())
    try:
        settings(effective({}, document, "kp.yaml").configuration)
        answer = ""
    except BadInput as error:
        answer = str(error)
    assert not answer or answer.startswith("--config kp.yaml: ")
