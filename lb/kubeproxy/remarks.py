"""What Tidegate does in place of what a field asks for, where the two differ: one line each.

A field at its default, or at zero, says nothing: the files that installers write start in silence.
"""

from __future__ import annotations

from collections.abc import Iterator

from lb.kubeproxy.v1alpha1 import Configuration, defaulted

GATES = {
    "AllowServiceExternalIPs": None,
    "ContextualLogging": None,
    "LoggingAlphaOptions": None,
    "LoggingBetaOptions": None,
    "MultiCIDRServiceAllocator": True,
    "NFTablesProxyMode": True,
    "PreferSameTrafficDistribution": True,
    "RelaxedServiceNameValidation": None,
    "StrictIPCIDRValidation": None,
    "AllAlpha": None,
    "AllBeta": None,
}
"""Feature gates that kube-proxy 1.36 knows and that matter here. True: is on, and stays on."""

_UNUSED = (
    (("iptables.masquerade_bit", "nftables.masquerade_bit"), "no packet is marked"),
    (
        ("iptables.min_sync_period", "nftables.min_sync_period", "ipvs.min_sync_period"),
        "changes are applied at once, and together where they come together",
    ),
    (
        ("iptables.sync_period", "nftables.sync_period", "ipvs.sync_period"),
        "nothing is synced by time; twice this period is how old a change may get in /healthz",
    ),
    (
        ("iptables.masquerade_all", "nftables.masquerade_all"),
        "sockets of pods connect to the backend itself, with their own address",
    ),
    (("ipvs.scheduler",), "sockets get a backend at random, clients outside one by Maglev"),
    (
        (
            "ipvs.exclude_cidrs", "ipvs.strict_arp", "ipvs.tcp_timeout", "ipvs.tcp_fin_timeout",
            "ipvs.udp_timeout",
        ),
        "IPVS is not used",
    ),
    (
        (
            "client_connection.content_type", "client_connection.accept_content_types",
            "client_connection.qps", "client_connection.burst",
        ),
        "JSON is asked for, a list and a watch for each kind",
    ),
    (("config_sync_period",), "a watch brings every change; nothing is asked for by time"),
    (("enable_profiling",), "no profiles are served"),
    (("show_hidden_metrics_for_version",), "no metric is hidden"),
    (("port_range",), "has no meaning, as in kube-proxy"),
    (("logging.vmodule",), "one verbosity holds for all modules"),
    (("winkernel", "windows_run_as_service"), "is for Windows"),
)  # fmt: skip

_NAMES = {"exclude_cidrs": "excludeCIDRs", "strict_arp": "strictARP"}


def remarks(found: Configuration) -> tuple[str, ...]:
    """Of a configuration with its defaults."""
    return (*_unused(found), *_gates(found))


def _unused(found: Configuration) -> Iterator[str]:
    usual = defaulted(Configuration(mode=found.mode))
    for paths, text in _UNUSED:
        asked = [path for path in paths if _asks(found, usual, path)]
        if asked:
            yield f"{', '.join(map(_shown, asked))}: {text}"


def _gates(found: Configuration) -> Iterator[str]:
    for name, on in sorted(found.feature_gates.items()):
        if name not in GATES:
            yield f"featureGates.{name}: no such feature gate is known here; left alone"
        elif GATES[name] and not on:
            yield f"featureGates.{name}: cannot be switched off"


def _asks(found: Configuration, usual: Configuration, path: str) -> bool:
    value, default = _at(found, path), _at(usual, path)
    return bool(value) and value != default


def _at(found: object, path: str) -> object:
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _shown(path: str) -> str:
    """The field as it stands in a file."""
    words = [_NAMES.get(name) or _camel(name) for name in path.split(".")]
    return ".".join(words)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
