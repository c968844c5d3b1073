"""`tidegate agent`: its flags, and how they become settings."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lb import logs
from lb.config import (
    BACKEND_SLOTS,
    REPAIR_SECONDS,
    RING_SLOTS,
    Settings,
    node_ips,
    node_name,
    page_address,
    pod_devices,
    ring_slots,
    table_sizes,
)
from lb.errors import BadInput, TidegateError
from lb.ground import Ground
from lb.host import protect, set_conntrack
from lb.kubeproxy import conntrack, encode
from lb.kubeproxy.effective import Effective, effective
from lb.kubeproxy.flags import DEPRECATED, FLAGS, GONE, LOGGING
from lb.kubeproxy.settings import settings as of_configuration
from lb.letterbox import reading
from lb.model import Algorithm, Dispatch, Way
from lb.options import (
    API_SOCKET,
    BPFFS,
    CGROUP,
    HOST_PORTS,
    PROGRAM_CACHE,
    bandwidth_flags,
    default_cgroup,
    kube_proxy_flags,
    optional_value,
)
from lb.reading import DOCUMENT, WHERE, Command, from_file, tell_version
from lb.tables import SIZES
from lb.unforeseen import Guard

_PATH = click.Path(path_type=Path)

log = logging.getLogger("tidegate")


@click.command(cls=Command)
@click.option(
    "--config",
    type=_PATH,
    is_eager=True,
    expose_value=False,
    callback=from_file,
    help="YAML file with these flags, where the command line wins; or a KubeProxyConfiguration.",
)
@click.option(
    "--manifests",
    type=_PATH,
    help="Watch a directory of YAML or JSON manifests in place of an API server.",
)
@click.option("--master", default="", help="URL of the API server; wins over the kubeconfig.")
@click.option(
    "--hostname-override",
    "--node-name",
    "name",
    default="",
    help="Which node this is.  [default: the host's name, lower case]",
)
@click.option(
    "--node-ip",
    default="",
    metavar="IP[,IP6]",
    help="The node's own addresses.  "
    "[default: from the Node object, else of the device with the default route]",
)
@click.option(
    "--devices",
    default="",
    metavar="NAME,...",
    help="Where traffic from outside enters.  [default: devices with a default route]",
)
@click.option(
    "--pod-devices",
    default="auto",
    show_default=True,
    metavar="PATTERN,...|off",
    help="Devices of pods whose clients have no sockets here; auto: veth and tap.",
)
@click.option(
    "--xdp",
    type=click.Choice(["auto", "native", "generic", "off"]),
    default="auto",
    show_default=True,
    help="Before the stack: in the driver, in front of the kernel's own, or by tc alone.",
)
@click.option(
    "--forwarding",
    type=click.Choice([way.value for way in Way]),
    default=Way.SNAT.value,
    show_default=True,
    help="To backends of other nodes: in this node's name, or so that they answer the client "
    "themselves; hybrid does that for TCP.",
)
@click.option(
    "--dsr-dispatch",
    type=click.Choice([one.value for one in Dispatch]),
    default=Dispatch.IPIP.value,
    show_default=True,
    help="Where backends answer the client themselves, their node hears what was asked by a "
    "second IP header, or by an IP option.",
)
@PROGRAM_CACHE
@click.option(
    "--repair-interval",
    type=click.FloatRange(0),
    default=REPAIR_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How often to look for what others took off or altered, and put it back; 0: never.",
)
@click.option(
    "--kube-proxy-rules",
    type=click.Choice(["auto", "remove", "keep"]),
    default="auto",
    show_default=True,
    help="What becomes of rules that kube-proxy left on this node once all services are served; "
    "auto: remove them if services come from an API server.",
)
@click.option(
    "--page-bind-address",
    default="",
    metavar="ADDRESS:PORT",
    help="Where a page for the browser is served, on loopback only.  [default: nowhere]",
)
@click.option(
    "--metrics-series",
    default=10_000,
    show_default=True,
    help="Services and backends with counters of their own among the metrics.",
)
@CGROUP
@BPFFS
@API_SOCKET
@click.option(
    "--max-services",
    default=SIZES["services"],
    show_default=True,
    help="Service ports, once per family.",
)
@click.option(
    "--max-frontends",
    default=SIZES["frontends"],
    show_default=True,
    help="Addresses and ports that services answer to.",
)
@click.option(
    "--max-backends",
    default=SIZES["backends"],
    show_default=True,
    help="Endpoints of service ports.",
)
@click.option(
    "--max-slots",
    default=SIZES["slots"] * 16,
    show_default=True,
    help="Places in lists of endpoints; a service takes 16, 32, 64 and so on.",
)
@click.option(
    "--max-source-ranges",
    default=SIZES["ranges"],
    show_default=True,
    help="Prefixes of loadBalancerSourceRanges.",
)
@click.option(
    "--max-rings",
    default=SIZES["rings"] * 2,
    show_default=True,
    help="Slots of Maglev rings; a service reached from outside takes 100 or more a backend.",
)
@click.option(
    "--algorithm",
    type=click.Choice([one.value for one in Algorithm]),
    default=Algorithm.MAGLEV.value,
    show_default=True,
    help="How clients outside are spread; a service's annotation tidegate.io/algorithm wins.",
)
@click.option(
    "--maglev-table-size",
    default=RING_SLOTS,
    show_default=True,
    help="The largest Maglev ring, in slots: a prime.",
)
@click.option(
    "--maglev-backend-slots",
    type=click.IntRange(100, 10_000),
    default=BACKEND_SLOTS,
    show_default=True,
    help="Slots for each backend, up to that; with 1300 a tenth replaced moves 1 % of the others.",
)
@click.option(
    "--max-affinity",
    default=SIZES["affinity"],
    show_default=True,
    help="Clients remembered for session affinity; the oldest give way.",
)
@click.option(
    "--max-limits",
    default=SIZES["limits"],
    show_default=True,
    help="Bandwidth limits of pods of this node, by direction.",
)
@bandwidth_flags
@HOST_PORTS
@kube_proxy_flags
@optional_value(
    "--cleanup", type=bool, default=False, help="Take everything off this node, and end."
)
@optional_value("--init-only", type=bool, default=False, help="Do only what needs root, and end.")
@click.option("--write-config-to", type=_PATH, help="Write the configuration in force, and end.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=tell_version,
    help="Show the version, and end.",
)
@click.pass_context
def agent(context: click.Context, /, **flags: Any) -> None:
    """Serve this node until told to stop; the data path stays when the agent goes.

    Takes all flags of kube-proxy, too, and its configuration file.
    """
    try:
        given = _given(context, flags)
        where = context.meta.get(WHERE)
        found = effective(given, context.meta.get(DOCUMENT), str(where or ""))
        logs.set_up(found.configuration.logging.format, found.configuration.logging.verbosity)
        for line in found.lines:
            log.warning("%s", line)
        if flags["write_config_to"] is not None:
            _write(flags["write_config_to"], encode.text(found.configuration))
        elif flags["cleanup"]:
            _clean(flags["bpffs"])
        elif flags["init_only"]:
            _initialise(flags["bpffs"], _conntrack(found))
        else:
            settings = _settings(flags, found)
            protect(found.configuration.oom_score_adj)
            _serve(settings, where if DOCUMENT in context.meta else None)
    except TidegateError as error:
        click.echo(f"{context.command_path.split()[0]}: {error}", err=True)
        sys.exit(error.status)


def _given(context: click.Context, flags: Mapping[str, Any]) -> dict[str, Any]:
    """kube-proxy's flags that were set, by their names."""
    names = [flag.name for flag in (*FLAGS, *LOGGING)] + [*DEPRECATED, *GONE]
    found = {}
    for name in names:
        field = name.replace("-", "_")
        if context.get_parameter_source(field) is not click.core.ParameterSource.DEFAULT:
            value = flags[field]
            found[name] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise BadInput(f"--write-config-to {path}: {error.strerror}") from error
    log.info("wrote %s", path)


def _clean(bpffs: Path) -> None:
    from lb.looking import clean  # noqa: PLC0415
    from lb.takeover import take_over  # noqa: PLC0415

    # As kube-proxy does: the rules of all its modes, too.
    for one in (*take_over(lambda *_: False), *clean(bpffs)):
        log.info("removed %s", one)


def _initialise(bpffs: Path, settings: Mapping[str, int]) -> None:
    from lb.looking import prepare  # noqa: PLC0415

    prepare(bpffs)
    set_conntrack(settings)
    log.info("%s is mounted, and the ports for masquerading are reserved", bpffs)


def _conntrack(found: Effective) -> dict[str, int]:
    return conntrack.wanted(found.configuration.conntrack, found.asked, os.cpu_count() or 1)


def _settings(flags: dict[str, Any], found: Effective) -> Settings:
    part = of_configuration(found.configuration)
    if flags["manifests"] is not None and (part["kubeconfig"] or flags["master"]):
        raise BadInput("--manifests stands in place of --kubeconfig and --master: give one of them")
    cgroup = default_cgroup(flags["cgroup"], required=True)
    assert cgroup is not None  # noqa: S101 - required
    rules = flags["kube_proxy_rules"]
    sizes = {
        "services": flags["max_services"], "frontends": flags["max_frontends"],
        "backends": flags["max_backends"], "slots": flags["max_slots"],
        "ranges": flags["max_source_ranges"], "affinity": flags["max_affinity"],
        "rings": flags["max_rings"], "limits": flags["max_limits"],
    }  # fmt: skip
    override = flags["name"] or found.configuration.hostname_override
    return Settings(
        manifests=flags["manifests"],
        master=flags["master"],
        node_name=node_name(override, os.uname().nodename),
        node_ips=node_ips(flags["node_ip"]),
        page=page_address(flags["page_bind_address"]),
        metrics_series=flags["metrics_series"],
        devices=tuple(part.strip() for part in flags["devices"].split(",") if part.strip()),
        pod_devices=pod_devices(flags["pod_devices"]),
        forwarding=Way(flags["forwarding"]),
        dispatch=Dispatch(flags["dsr_dispatch"]),
        xdp=flags["xdp"],
        algorithm=Algorithm(flags["algorithm"]),
        cgroup=cgroup,
        bpffs=flags["bpffs"],
        program_cache=Path(flags["program_cache"]) if flags["program_cache"] else None,
        api_socket=flags["api_socket"],
        ring_slots=ring_slots(flags["maglev_table_size"]),
        backend_slots=flags["maglev_backend_slots"],
        repair_seconds=flags["repair_interval"],
        # A trial on files must not take the services of a live cluster off its node.
        takes_over=rules == "remove" or (rules == "auto" and flags["manifests"] is None),
        conntrack=_conntrack(found),
        host_ports=_host_ports(flags),
        bandwidth=flags["bandwidth"],
        bandwidth_scope=flags["bandwidth_scope"],
        pod_bbr=flags["pod_bbr"] == "on",
        sizes=table_sizes(sizes),
        **part,
    )


def _host_ports(flags: Mapping[str, Any]) -> bool:
    """As told; else where it takes no further right, and no CNI serves them."""
    asked: bool | None = flags["host_ports"]
    return asked if asked is not None else flags["manifests"] is not None


def _serve(settings: Settings, watched: Path | None) -> None:
    guard = Guard()
    # Each of these imports takes a while; the compiler, and then the source, work meanwhile.
    ground = Ground(settings)
    source, stop = _source(settings), threading.Event()
    letterbox = reading(source, stop)
    from lb.agent import Agent  # noqa: PLC0415 - netlink, only where needed

    agent = Agent(settings, ground, letterbox, stop, api=getattr(source, "api", None))
    guard.lead_to(agent.fail)
    if watched is not None:
        from lb.rewritten import end_when_rewritten  # noqa: PLC0415

        end_when_rewritten(watched, agent.fail)
    agent.run()


def _source(settings: Settings) -> Any:
    if settings.manifests is not None:
        from lb.sources.manifests import ManifestSource  # noqa: PLC0415

        return ManifestSource(settings.manifests)
    from lb.sources.kubernetes import KubernetesSource  # noqa: PLC0415

    return KubernetesSource(
        kubeconfig=settings.kubeconfig,
        master=settings.master,
        node_name=settings.node_name,
        all_nodes=settings.forwarding is not Way.SNAT,
        pods=settings.bandwidth != "off" or settings.host_ports,
        host_ports=settings.host_ports,
    )
