"""What `deploy/` ships is what its sources say, is valid, and asks for what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, generate_latest

from deploy.grafana import dashboard
from deploy.render import CHART, PLAIN, rendered
from lb.agent_command import agent
from lb.limits.metrics import LimitsCollector
from lb.metrics import TidegateCollector
from tests.unit.lb.test_controller import Bench

TOP = Path(__file__).parents[2]
DOCKERFILE = TOP / "deploy" / "Dockerfile"


@pytest.fixture(autouse=True)
def _helm() -> None:
    pytest.importorskip("helm_python", reason="needs helm-python-sdk, of the extra dev")


def objects(text: str) -> dict[tuple[str, str], Any]:
    """By kind and name."""
    found = [one for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def pod(values: dict[str, Any] | None = None) -> Any:
    """The pod's specification for these values."""
    return objects(rendered(values))["DaemonSet", "tidegate"]["spec"]["template"]["spec"]


def test_plain_yaml_is_the_charts() -> None:
    """`python -m deploy.render` would change nothing."""
    assert PLAIN.read_text() == rendered()


def test_helm_finds_nothing_to_say() -> None:
    """Not even with its warnings as errors."""
    from helm_python import lint  # noqa: PLC0415

    report = lint(str(CHART), strict=True)
    assert [one for one in report["messages"] if one["severity"] >= 2] == []
    assert report["errors"] == []


def test_every_value_is_documented_and_in_the_schema() -> None:
    """A comment above each in values.yaml, and a property of the same name."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]
    assert set(values) == set(schema) - {"global"}
    for name, value in values.items():
        nested = list(value) if name in ("image", "apiServer") else []
        for one in nested or [name]:
            (at,) = [i for i, line in enumerate(lines) if line.strip().startswith(f"{one}:")]
            above = [line.strip() for line in lines[:at]]
            while above and above[-1].startswith("# ") and not above[-1].startswith("# -- "):
                above.pop()
            assert above[-1].startswith("# -- "), one
        for one in nested:
            assert one in schema[name]["properties"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"xdp": "fast"}, {"devices": "eth0"}, {"apiServer": {"port": 0}}, {"unknown": 1},
        {"image": {"digest": "latest"}}, {"extraArgs": ["devices=eth0"]},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    """By the schema, before anything is rendered."""
    from helm_python import Chart  # noqa: PLC0415
    from helm_python.errors import HelmError  # noqa: PLC0415

    with Chart.load(str(CHART)) as chart, pytest.raises(HelmError):
        chart.validate_schema(wrong)


ALL = {
    "apiServer": {"host": "192.0.2.1"}, "clusterCIDR": "10.244.0.0/16", "devices": ["eth0", "eth1"],
    "nodeportAddresses": ["primary"], "extraArgs": ["--max-services=100"],
    "podAnnotations": {"a": "b"}, "imagePullSecrets": [{"name": "s"}],
    "image": {"digest": "sha256:" + 64 * "0"}, "hostPorts": True,
}  # fmt: skip


@pytest.mark.parametrize("values", [None, ALL, {"bandwidth": "off"}], ids=["default", "all", "off"])
def test_every_object_is_valid(values: dict[str, Any] | None) -> None:
    """By the API's own schemas, strictly: no field that Kubernetes does not know."""
    validate = pytest.importorskip("kubernetes_validate")
    for one in objects(rendered(values)).values():
        validate.validate(one, "1.35", strict=True)


@pytest.mark.parametrize("values", [None, ALL], ids=["default", "all"])
def test_the_agent_takes_every_flag(values: dict[str, Any] | None) -> None:
    """The arguments of the pod parse, as far as the flags go."""
    first, *flags = pod(values)["containers"][0]["args"]
    assert first == "agent"
    done = CliRunner().invoke(agent, [*flags, "--help"])
    assert done.exit_code == 0, done.output
    known = {option for parameter in agent.params for option in parameter.opts}
    assert {flag.partition("=")[0] for flag in flags} <= known


def test_rights_are_kube_proxys_and_pods_only_where_needed() -> None:
    """The role of kube-proxy is bound as it is; one more reads pods, unless nothing needs it."""
    with_limits, without = objects(rendered()), objects(rendered({"bandwidth": "off"}))
    bound = with_limits["ClusterRoleBinding", "tidegate"]["roleRef"]["name"]
    assert bound == "system:node-proxier"
    rules = with_limits["ClusterRole", "tidegate-pods"]["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    assert not [name for kind, name in without if kind == "ClusterRole"]
    ports = objects(rendered({"bandwidth": "off", "hostPorts": True}))
    assert ports["ClusterRole", "tidegate-pods"]["rules"] == rules


def test_pins_outlive_the_pod() -> None:
    """A bpffs that the privileged container mounts reaches the node, and from there the agent."""
    spec = pod()
    (init,), (agent_container,) = spec["initContainers"], spec["containers"]
    assert init["securityContext"]["privileged"]
    ways = [
        one["mountPropagation"]
        for container in (init, agent_container)
        for one in container["volumeMounts"]
        if one["name"] == "bpffs"
    ]
    assert ways == ["Bidirectional", "HostToContainer"]


@pytest.mark.parametrize("given", [None, {"seLinuxOptions": None}], ids=["default", "none"])
def test_selinux(given: dict[str, Any] | None) -> None:
    """By default the type that may use BPF; none where the operator says so."""
    options = pod(given)["securityContext"].get("seLinuxOptions")
    assert options == ({"type": "spc_t", "level": "s0"} if given is None else None)


def test_the_kubeadm_patch_fits_its_daemonset() -> None:
    """It names kubeadm's container, and mounts what it adds."""
    patch = yaml.safe_load((TOP / "deploy" / "kubernetes" / "kubeadm-patch.yaml").read_text())
    spec = patch["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "kube-proxy"
    assert [one["name"] for one in container["volumeMounts"]] == [
        one["name"] for one in spec["volumes"]
    ]
    ours = {one["name"]: one for one in pod()["volumes"]}
    assert spec["volumes"][0] == ours["bpffs"]


def metrics() -> set[str]:
    """The names that an agent serves, with those of every Python process."""
    bench = Bench()
    bench.sync()
    registry = CollectorRegistry()
    registry.register(
        TidegateCollector(bench.controller, lambda: {"a": 1}, lambda: 1, lambda: {"a": 1})
    )
    text = generate_latest(registry).decode()
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"}


def limits() -> set[str]:
    """The names of what an agent serves for each limit."""
    found = LimitsCollector(list).collect()
    return {one.name + "_total" * (one.type == "counter") for one in found}


def test_the_dashboard_is_as_written_and_asks_for_what_is_served() -> None:
    """`python -m deploy.grafana` would change nothing; every metric in it is an agent's."""
    assert dashboard.OUT.read_text() == dashboard.text()
    served = metrics()
    for panel in dashboard.dashboard()["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\b(tidegate_\w+)", target["expr"])) - {"tidegate_"}
            assert named <= served | limits(), target["expr"]
    shown = " ".join(one.expression for one in dashboard.PANELS)
    rest = ("_count", "_sum")  # of a histogram, whose buckets are shown
    assert {name for name in served if name not in shown and not name.endswith(rest)} == set()


def instructions(name: str) -> Iterator[str]:
    """The arguments of each such instruction, with its continuation lines."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            yield line.removeprefix(f"{name} ")


def test_the_image_copies_what_is_there() -> None:
    """Every source of a COPY exists, is let through by the ignore file, and packages are whole."""
    ignore = (TOP / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        one.rstrip("/") for line in instructions("COPY") if "--from" not in line
        for one in line.split()[:-1]
    ]  # fmt: skip
    for source in sources:
        assert (TOP / source).exists()
        assert f"!{source}" in ignore
    packages = re.findall(r"packages = \[(.*?)\]", (TOP / "pyproject.toml").read_text())[0]
    folders = {name.strip('" ').split(".")[0] for name in packages.split(",")}
    assert folders <= set(sources)


def test_the_image_has_what_the_agent_needs() -> None:
    """Its Debian packages are known to the project; Python packages are pinned by hash."""
    listed = (TOP / ".ci" / "debian-packages").read_text()
    installed = re.findall(
        r"install --yes --no-install-recommends (.*?)&&", " ".join(instructions("RUN"))
    )
    for name in " ".join(installed).split():
        assert re.search(rf"^{re.escape(name)}\s", listed, re.MULTILINE), name
    lock = (TOP / ".ci" / "requirements-image.lock").read_text()
    whole = (TOP / ".ci" / "requirements.lock").read_text()
    pins = re.findall(r"^(\S+==\S+)", lock, re.MULTILINE)
    assert pins
    assert [pin for pin in pins if f"\n{pin} " not in f"\n{whole}"] == []
