"""`tidegate agent`: its flags, and how they become settings."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import click
import yaml

from lb.config import RING_SLOTS, Settings, listen, node_ips, node_name, ring_slots, table_sizes
from lb.errors import BadInput, TidegateError
from lb.ground import Ground
from lb.letterbox import reading
from lb.nodeports import read_setting
from lb.options import API_SOCKET, BPFFS, CGROUP, default_cgroup
from lb.tables import SIZES

_PATH = click.Path(path_type=Path)

LATER = {
    "pod_devices": "auto", "forwarding": "snat", "dsr_dispatch": "ipip", "algorithm": "maglev",
    "cluster_cidr": "", "detect_local_mode": "ClusterCIDR", "masquerade_all": "false",
    "healthz_bind_address": "0.0.0.0:10256",
}  # fmt: skip
"""Flags of the contract that this version takes and has no use for yet; each says so when given."""


def _from_file(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Flags from a YAML file: `node-name: n1`. Those on the command line win."""
    if path is None:
        return None
    try:
        found = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise click.BadParameter(f"{path}: {str(error).replace(chr(10), ' ')}") from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"{path}: not a mapping of flags to values")
    known = {parameter.name for parameter in context.command.params}
    values: dict[str, Any] = {}
    for name, value in found.items():
        field = str(name).replace("-", "_")
        if field not in known:
            raise click.BadParameter(f"{path}: {name}: no such flag")
        values[field] = ",".join(map(str, value)) if isinstance(value, list) else value
    context.default_map = values
    return path


def _later(function: Any) -> Any:
    for name, default in reversed(LATER.items()):
        flag = "--" + name.replace("_", "-")
        function = click.option(flag, default=default, hidden=True)(function)
    return function


@click.command()
@click.option(
    "--config",
    type=_PATH,
    is_eager=True,
    expose_value=False,
    callback=_from_file,
    help="YAML file with these flags; the command line wins.",
)
@click.option(
    "--manifests",
    type=_PATH,
    help="Watch a directory of YAML or JSON manifests in place of an API server.",
)
@click.option(
    "--kubeconfig", default="", help="How to reach the API server.  [default: in-cluster]"
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
    "--xdp",
    type=click.Choice(["auto", "native", "generic", "off"]),
    default="auto",
    show_default=True,
    help="Before the stack: in the driver, in front of the kernel's own, or by tc alone.",
)
@click.option(
    "--nodeport-addresses",
    default="",
    metavar="CIDR,...|primary",
    help="Addresses that accept node ports.  [default: as --proxy-mode has it]",
)
@click.option(
    "--proxy-mode",
    type=click.Choice(["", "iptables", "ipvs", "nftables"]),
    default="",
    help="Whose defaults to follow where kube-proxy's modes differ.",
)
@click.option(
    "--iptables-localhost-nodeports",
    type=bool,
    default=True,
    show_default=True,
    help="Node ports on 127.0.0.1 for the node's own processes.",
)
@click.option(
    "--metrics-bind-address",
    default="127.0.0.1:10249",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where Prometheus metrics are served; empty: nowhere.",
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
    "--maglev-table-size",
    default=RING_SLOTS,
    show_default=True,
    help="The largest Maglev ring, in slots: a prime.",
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
@click.option(
    "--bandwidth",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Pod bandwidth limits; on: do not start where the kernel has no fq.",
)
@click.option(
    "--bandwidth-scope",
    type=click.Choice(["node", "all"]),
    default="node",
    show_default=True,
    help="What egress limits hold for: what leaves the node, or also what goes to its own pods.",
)
@click.option("-v", "--verbosity", default=0, show_default=True, help="More logs from 2 on.")
@_later
@click.pass_context
def agent(context: click.Context, /, **flags: Any) -> None:
    """Serve this node until told to stop; the data path stays when the agent goes."""
    level = logging.DEBUG if flags["verbosity"] >= 2 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(message)s")
    for name in LATER:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            flag = "--" + name.replace("_", "-")
            logging.getLogger("tidegate").warning("%s has no use in this version yet", flag)
    try:
        _serve(_settings(flags))
    except TidegateError as error:
        click.echo(f"tidegate: {error}", err=True)
        sys.exit(error.status)


def _settings(flags: dict[str, Any]) -> Settings:
    if flags["manifests"] is not None and (flags["kubeconfig"] or flags["master"]):
        raise BadInput("--manifests stands in place of --kubeconfig and --master: give one of them")
    cgroup = default_cgroup(flags["cgroup"], required=True)
    assert cgroup is not None  # noqa: S101 - required
    sizes = {
        "services": flags["max_services"], "frontends": flags["max_frontends"],
        "backends": flags["max_backends"], "slots": flags["max_slots"],
        "ranges": flags["max_source_ranges"], "affinity": flags["max_affinity"],
        "rings": flags["max_rings"], "limits": flags["max_limits"],
    }  # fmt: skip
    return Settings(
        manifests=flags["manifests"],
        kubeconfig=flags["kubeconfig"],
        master=flags["master"],
        node_name=node_name(flags["name"], os.uname().nodename),
        node_ips=node_ips(flags["node_ip"]),
        nodeport_addresses=read_setting(flags["nodeport_addresses"]),
        proxy_mode=flags["proxy_mode"],
        localhost_nodeports=flags["iptables_localhost_nodeports"],
        metrics=listen(flags["metrics_bind_address"], "--metrics-bind-address"),
        devices=tuple(part.strip() for part in flags["devices"].split(",") if part.strip()),
        xdp=flags["xdp"],
        cgroup=cgroup,
        bpffs=flags["bpffs"],
        api_socket=flags["api_socket"],
        ring_slots=ring_slots(flags["maglev_table_size"]),
        bandwidth=flags["bandwidth"],
        bandwidth_scope=flags["bandwidth_scope"],
        sizes=table_sizes(sizes),
    )


def _serve(settings: Settings) -> None:
    # Each of these imports takes a while; the compiler, and then the source, work meanwhile.
    ground = Ground(settings)
    source, stop = _source(settings), threading.Event()
    letterbox = reading(source, stop)
    from lb.agent import Agent  # noqa: PLC0415 - netlink, only where needed

    Agent(settings, ground, letterbox, stop).run()


def _source(settings: Settings) -> Any:
    if settings.manifests is not None:
        from lb.sources.manifests import ManifestSource  # noqa: PLC0415

        return ManifestSource(settings.manifests)
    from lb.sources.kubernetes import KubernetesSource  # noqa: PLC0415

    return KubernetesSource(
        kubeconfig=settings.kubeconfig,
        master=settings.master,
        node_name=settings.node_name,
        pods=settings.bandwidth != "off",
    )
