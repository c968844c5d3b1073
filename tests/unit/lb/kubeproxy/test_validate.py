"""What a configuration may hold: kube-proxy's rules as rows, in files and as flags."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lb.errors import BadInput
from lb.kubeproxy.decode import read
from lb.kubeproxy.effective import effective
from lb.kubeproxy.flags import DEPRECATED, FLAGS, GONE, HELP, LOGGING, flag_of
from lb.kubeproxy.v1alpha1 import Configuration

HEAD = b"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

WRONG = [
    ("bindAddress: here", "bindAddress: 'here' must be an IP address"),
    ("healthzBindAddress: '1.2.3.4:0'", "healthzBindAddress: '1.2.3.4:0' must be IP:PORT"),
    ("healthzBindAddress: '1.2.3.4:65536'", "must be IP:PORT"),
    ("healthzBindAddress: 'name:10256'", "must be IP:PORT"),
    ("metricsBindAddress: '::1:x'", "must be IP:PORT"),
    ("metricsBindAddress: 'fd00::zz:10249'", "must be IP:PORT"),
    ("mode: userspace", "mode: 'userspace' must be one of iptables, ipvs, nftables, or empty"),
    ("iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: 32 must be within 0 and 31"),
    ("iptables: {masqueradeBit: -1}", "iptables.masqueradeBit: -1 must be within 0 and 31"),
    ("mode: nftables\nnftables: {masqueradeBit: 32}", "nftables.masqueradeBit: 32"),
    ("iptables: {syncPeriod: -1s}", "iptables.syncPeriod: -1s must be above 0"),
    ("iptables: {minSyncPeriod: -1s}", "iptables.minSyncPeriod: -1s must be within 0"),
    ("iptables: {syncPeriod: 1s, minSyncPeriod: 2s}", "within 0 and syncPeriod (1s)"),
    ("mode: ipvs\nipvs: {syncPeriod: -1s}", "ipvs.syncPeriod: -1s must be above 0"),
    ("mode: ipvs\nipvs: {tcpTimeout: -1s}", "ipvs.tcpTimeout: -1s must be 0 or more"),
    ("mode: ipvs\nipvs: {tcpFinTimeout: -1s}", "ipvs.tcpFinTimeout: -1s must be 0 or more"),
    ("mode: ipvs\nipvs: {udpTimeout: -1s}", "ipvs.udpTimeout: -1s must be 0 or more"),
    ("mode: ipvs\nipvs: {excludeCIDRs: ['::1']}", "ipvs.excludeCIDRs[0]: '::1' must be a CIDR"),
    ("mode: nftables\nnftables: {syncPeriod: -1s}", "nftables.syncPeriod: -1s must be above 0"),
    ("configSyncPeriod: -1s", "configSyncPeriod: -1s must be above 0"),
    ("oomScoreAdj: -1001", "oomScoreAdj: -1001 must be within -1000 and 1000"),
    ("oomScoreAdj: 1001", "oomScoreAdj: 1001 must be within"),
    ("conntrack: {maxPerCore: -1}", "conntrack.maxPerCore: -1 must be 0 or more"),
    ("conntrack: {min: -1}", "conntrack.min: -1 must be 0 or more"),
    ("conntrack: {tcpEstablishedTimeout: -1s}", "conntrack.tcpEstablishedTimeout: -1s"),
    ("conntrack: {tcpCloseWaitTimeout: -1s}", "conntrack.tcpCloseWaitTimeout: -1s"),
    ("conntrack: {udpTimeout: -1s}", "conntrack.udpTimeout: -1s"),
    ("conntrack: {udpStreamTimeout: -1s}", "conntrack.udpStreamTimeout: -1s"),
    ("clientConnection: {burst: -1}", "clientConnection.burst: -1 must be 0 or more"),
    ("nodePortAddresses: [primary, 10.0.0.0/8]", "nodePortAddresses[0]: 'primary' must stand"),
    ("nodePortAddresses: [10.0.0.0/8, primary]", "nodePortAddresses[1]: 'primary' must stand"),
    ("nodePortAddresses: [10.0.0.1]", "nodePortAddresses[0]: '10.0.0.1' must be a CIDR"),
    ("clusterCIDR: 10.0.0.1", "clusterCIDR: '10.0.0.1' must be a CIDR"),
    ("clusterCIDR: '10.0.0.0/8,11.0.0.0/8'", "must be one CIDR, or one of each family"),
    ("clusterCIDR: '10.0.0.0/8,fd00::/8,11.0.0.0/8'", "must be one CIDR, or one of each family"),
    ("detectLocalMode: Pods", "detectLocalMode: 'Pods' must be one of ClusterCIDR, NodeCIDR"),
    ("detectLocalMode: BridgeInterface", "detectLocal.bridgeInterface: '' must not be empty"),
    ("detectLocalMode: InterfaceNamePrefix", "detectLocal.interfaceNamePrefix: '' must not"),
    ("logging: {format: xml}", "logging.format: 'xml' must be text or json"),
    ("logging: {verbosity: -1}", "logging.verbosity: -1 must be 0 or more"),
    ("portRange: many", "portRange: 'many' must be FIRST-LAST"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_refused(text: str, message: str) -> None:
    """The field, what it holds, and what it must be."""
    with pytest.raises(BadInput) as caught:
        effective({}, read(HEAD + text.encode()), "kp.yaml")
    assert str(caught.value).startswith("--config kp.yaml: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "ipvs: {tcpTimeout: -1s, excludeCIDRs: [x]}",
        "nftables: {masqueradeBit: 99}",
        "detectLocalMode: NodeCIDR\nclusterCIDR: whatever",
        "clusterCIDR: 'fd00::/8,10.0.0.0/8'",
        "healthzBindAddress: '[fd00::1]:1'",
        "healthzBindAddress: 'fd00::1'",
        "nodePortAddresses: ['10.0.0.0/8', '0.0.0.0/0', '::/0']",
        "conntrack: {maxPerCore: 0, min: 0}",
        "iptables: {syncPeriod: 1s, minSyncPeriod: 1s}",
        "portRange: 30000-32767",
        "oomScoreAdj: 0",
    ],
)
def test_what_is_good(text: str) -> None:
    """Fields of another mode are not judged."""
    effective({}, read(HEAD + text.encode()), "kp.yaml")


def test_all_faults_at_once() -> None:
    """Nobody has to correct a file one start at a time."""
    with pytest.raises(BadInput, match=r"oomScoreAdj: .*; mode: "):
        effective({}, read(HEAD + b"mode: x\noomScoreAdj: 5000\n"), "kp.yaml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"proxy-mode": "x"}, "--proxy-mode: 'x' must be one of"),
        ({"masquerade-all": True, "iptables-masquerade-bit": 32}, "--iptables-masquerade-bit: 32"),
        ({"proxy-mode": "nftables", "iptables-sync-period": "-1s"}, "--iptables-sync-period: -1s"),
        ({"proxy-mode": "ipvs", "ipvs-sync-period": "-1s"}, "--ipvs-sync-period: -1s"),
        ({"nodeport-addresses": "10.0.0.1"}, "--nodeport-addresses: '10.0.0.1' must be a CIDR"),
        ({"metrics-port": 70000}, "--metrics-port: '127.0.0.1:70000' must be IP:PORT"),
        ({"conntrack-udp-timeout": "5"}, "--conntrack-udp-timeout: '5' is not a duration"),
        ({"feature-gates": "A"}, "--feature-gates: 'A' is not NAME=VALUE"),
        ({"feature-gates": "A=perhaps"}, "--feature-gates: 'A=perhaps' is not NAME=VALUE"),
        ({"vmodule": "a=b"}, "--vmodule: 'a=b' is not NAME=VALUE"),
        ({"detect-local-mode": "BridgeInterface"}, "--pod-bridge-interface: '' must not be empty"),
    ],
)
def test_a_flag_that_is_refused(flags: dict[str, Any], message: str) -> None:
    """The flag is named, not a field that nobody wrote."""
    with pytest.raises(BadInput) as caught:
        effective(flags, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ({}, {"mode": "iptables", "node_port_addresses": ()}),
        ({"proxy-mode": "nftables"}, {"node_port_addresses": ("primary",)}),
        ({"healthz-port": 0}, {"healthz_bind_address": ""}),
        ({"metrics-port": 0}, {"metrics_bind_address": ""}),
        ({"healthz-port": 1}, {"healthz_bind_address": "0.0.0.0:1"}),
        ({"healthz-port": 1, "healthz-bind-address": "::1"}, {"healthz_bind_address": "[::1]:1"}),
        (
            {"healthz-port": 1, "healthz-bind-address": "1.1.1.1:2"},
            {"healthz_bind_address": "1.1.1.1:2"},
        ),
        ({"healthz-bind-address": ""}, {"healthz_bind_address": ""}),
        ({"metrics-bind-address": "0"}, {"metrics_bind_address": ""}),
        ({"metrics-bind-address": "::"}, {"metrics_bind_address": "[::]:10249"}),
        ({"bind-address": "fd00::1"}, {"healthz_bind_address": "[::]:10256"}),
        ({"bind-address": "fd00::1"}, {"metrics_bind_address": "[::1]:10249"}),
        ({"feature-gates": "A=true,B=F"}, {"feature_gates": {"A": True, "B": False}}),
    ],
)  # fmt: skip
def test_what_flags_become(flags: dict[str, Any], fields: dict[str, Any]) -> None:
    """A command line is a configuration like any other."""
    found = effective(flags, None).configuration
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize("mode", ["", "iptables", "ipvs", "nftables"])
@pytest.mark.parametrize("name", ["iptables", "ipvs"])
def test_periods_belong_to_their_mode(mode: str, name: str) -> None:
    """A sync period of another mode counts for nothing; nftables takes that of iptables."""
    flags = {"proxy-mode": mode, f"{name}-sync-period": "5m", f"{name}-min-sync-period": "7s"}
    part = effective(flags, None).configuration.technology
    counts = (mode == "ipvs") == (name == "ipvs")
    assert (part.sync_period.seconds == 300) == counts
    assert (part.min_sync_period.seconds == 7) == counts


@pytest.mark.parametrize("mode", ["iptables", "ipvs", "nftables"])
def test_masquerade_all_counts_in_every_mode(mode: str) -> None:
    """One flag for all modes."""
    assert effective(
        {"proxy-mode": mode, "masquerade-all": True}, None
    ).configuration.masquerade_all


@pytest.mark.parametrize("name", GONE)
def test_flags_of_old_are_taken(name: str) -> None:
    """An old command line starts, and is told."""
    assert effective({name: "1"}, None).lines == (f"--{name}: a flag of old, without any effect",)


def test_a_port_of_old_names_its_successor() -> None:
    """The deprecation is said in one line each."""
    found = effective({"healthz-port": 1, "metrics-port": 2}, None)
    assert found.lines == (
        "--healthz-port: use --healthz-bind-address", "--metrics-port: use --metrics-bind-address",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"iptables-masquerade-bit": 3}, "iptables.masqueradeBit: no packet is marked"),
        ({"iptables-sync-period": "5m"}, "iptables.syncPeriod: nothing is synced by time"),
        ({"iptables-min-sync-period": "5s"}, "iptables.minSyncPeriod: changes are applied at once"),
        ({"ipvs-scheduler": "lc"}, "ipvs.scheduler: sockets get a backend at random"),
        ({"ipvs-strict-arp": True}, "ipvs.strictARP: IPVS is not used"),
        ({"kube-api-qps": 50.0}, "clientConnection.qps: JSON is asked for"),
        ({"config-sync-period": "1m"}, "configSyncPeriod: a watch brings every change"),
        ({"profiling": True}, "enableProfiling: no profiles are served"),
        ({"vmodule": "agent=4"}, "logging.vmodule: one verbosity holds"),
        ({"feature-gates": "NFTablesProxyMode=false"}, "NFTablesProxyMode: cannot be switched off"),
        ({"feature-gates": "Nope=true"}, "featureGates.Nope: no such feature gate is known here"),
    ],
)
def test_what_is_done_in_place(flags: dict[str, Any], line: str) -> None:
    """Who asks for what Tidegate does otherwise is told so in one line."""
    (found,) = effective(flags, None).lines
    assert line in found


def test_every_flag_is_a_field() -> None:
    """The table of flags names fields that exist, each once, and leads back from all of them."""
    names = [flag.name for flag in (*FLAGS, *LOGGING)]
    assert len(set(names)) == len(names)
    assert not {*names} & {*GONE, *DEPRECATED}
    assert set(HELP) <= set(names)
    for flag in (*FLAGS, *LOGGING):
        path = flag.path.replace("*", "iptables").replace("~", "nftables")
        assert flag_of(path) == f"--{flag.name}"
        fields: Any = Configuration
        for name in path.split("."):
            fields = {one.encode_name: one.type for one in msgspec.structs.fields(fields)}[name]
