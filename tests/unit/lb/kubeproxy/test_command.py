"""The command line as kube-proxy's: names, ways of writing, files, and what ends at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lb import __version__, agent_command
from lb.agent_command import agent
from lb.cli import tidegate
from lb.config import Settings

RANGES = ["10.0.0.0/8", "fd00::/8"]
GATES = {"A": True, "B": False}
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def call(*args: str, name: str = "kube-proxy") -> Result:
    """The program's answer."""
    command = agent if name == "kube-proxy" else tidegate
    return CliRunner().invoke(command, args, prog_name=name)


def written(folder: Path, *args: str, name: str = "kube-proxy") -> Any:
    """The configuration in force for a command line."""
    path = folder / "written.yaml"
    front = ["agent"] if name == "tidegate" else []
    done = call(*front, *args, f"--write-config-to={path}", name=name)
    assert done.exit_code == 0, done.output
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--masquerade-all"], ("iptables", "masqueradeAll"), True),
        (["--masquerade-all=true"], ("iptables", "masqueradeAll"), True),
        (["--masquerade_all=false"], ("iptables", "masqueradeAll"), False),
        (["--masquerade-all", "--proxy-mode=nftables"], ("nftables", "masqueradeAll"), True),
        (["--iptables-localhost-nodeports", "false"], ("iptables", "localhostNodePorts"), False),
        (["-v=5"], ("logging", "verbosity"), 5),
        (["-v", "5"], ("logging", "verbosity"), 5),
        (["-v5"], ("logging", "verbosity"), 5),
        (["--v=5"], ("logging", "verbosity"), 5),
        (["--verbosity=5"], ("logging", "verbosity"), 5),
        (["--nodeport-addresses=10.0.0.0/8,fd00::/8"], ("nodePortAddresses",), RANGES),
        ([f"--nodeport-addresses={one}" for one in RANGES], ("nodePortAddresses",), RANGES),
        (["--feature-gates=A=true", "--feature-gates=B=0"], ("featureGates",), GATES),
        (["--kube-api-qps=7.5"], ("clientConnection", "qps"), 7.5),
        (["--oom-score-adj", "-5"], ("oomScoreAdj",), -5),
        (["--cluster_cidr", "10.0.0.0/8"], ("clusterCIDR",), "10.0.0.0/8"),
        (["--logtostderr=true", "--v=0"], ("mode",), "iptables"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["kube-proxy", "tidegate"])
def test_ways_of_writing(
    args: list[str], field: tuple[str, ...], value: Any, name: str, tmp_path: Path
) -> None:
    """Flags are written as Go's programs take them, under either name."""
    found = written(tmp_path, *args, name=name)
    for one in field:
        found = found[one]
    assert found == value


@pytest.mark.parametrize("name", ["kube-proxy", "tidegate"])
def test_a_configuration_file(name: str, tmp_path: Path) -> None:
    """kube-proxy's file is understood as is, and wins over flags for its fields."""
    path = tmp_path / "config.conf"
    path.write_text(HEAD + "mode: nftables\nclusterCIDR: 10.0.0.0/8\n")
    found = written(tmp_path, f"--config={path}", "--proxy-mode=ipvs", "-v=3", name=name)
    assert (found["mode"], found["clusterCIDR"]) == ("nftables", "10.0.0.0/8")
    assert found["logging"]["verbosity"] == 3


def test_a_file_of_flags(tmp_path: Path) -> None:
    """Tidegate's own file holds flags by any of their names; the command line wins."""
    path = tmp_path / "tidegate.yaml"
    path.write_text(
        "node-name: n1\nproxy-mode: nftables\ncluster-cidr: 10.0.0.0/8\nmasquerade-all: true\n"
        "nodeport-addresses: [10.0.0.0/8, 11.0.0.0/8]\ndevices: [eth0]\n"
    )
    found = written(tmp_path, f"--config={path}", "--cluster-cidr=12.0.0.0/8", name="tidegate")
    assert (found["mode"], found["clusterCIDR"]) == ("nftables", "12.0.0.0/8")
    assert found["nodePortAddresses"] == ["10.0.0.0/8", "11.0.0.0/8"]
    assert found["nftables"]["masqueradeAll"] is True


def test_words_that_yaml_takes_for_others(tmp_path: Path) -> None:
    """`on` and `off` are flags' words, a mapping is a list of pairs, nothing is no value."""
    path = tmp_path / "tidegate.yaml"
    path.write_text(
        "xdp: off\nbandwidth: on\npod-bbr: off\ndevices:\nfeature-gates: {AllAlpha: true}\n"
    )
    found = written(tmp_path, f"--config={path}", name="tidegate")
    assert found["featureGates"] == {"AllAlpha": True}


@pytest.mark.parametrize(
    ("args", "text", "is_on"),
    [
        (["--manifests=/m"], "", True),
        (["--master=http://x"], "", False),
        (["--master=http://x", "--host-ports"], "", True),
        (["--manifests=/m", "--host-ports=false"], "", False),
        (["--manifests=/m", "--no-host-ports"], "", False),
        (["--manifests=/m", "--no_host_ports", "--host-ports"], "", True),
        (["--manifests=/m"], "host-ports: false", False),
        (["--master=http://x"], "host-ports: true", True),
        (["--no-host-ports"], "manifests: /m\nhost-ports: true", False),
        ([], "manifests: /m", True),
    ],
)
def test_host_ports(
    args: list[str],
    text: str,
    is_on: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default where they take no right and nobody else serves them; the last word wins."""
    told: list[Settings] = []
    monkeypatch.setattr(agent_command, "_serve", lambda settings, _: told.append(settings))
    monkeypatch.setattr(agent_command, "protect", lambda _: None)
    path = tmp_path / "tidegate.yaml"
    path.write_text(text or "{}")
    (tmp_path / "cgroup.procs").touch()
    done = call("agent", *args, f"--config={path}", f"--cgroup={tmp_path}", name="tidegate")
    assert done.exit_code == 0, done.output
    assert [one.host_ports for one in told] == [is_on]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("xdp: on", "tidegate", "'on' is not one of 'auto', 'native', 'generic', 'off'"),
        ("nope: 1", "tidegate", "nope: no such flag"),
        ("[a]", "tidegate", "not a mapping of flags to values"),
        ("mode: [", "tidegate", "line "),
        ("mode: iptables", "kube-proxy", "apiVersion is None"),
        (HEAD + "mode: x", "kube-proxy", "mode: 'x' must be one of"),
        (HEAD + "mode: x", "tidegate", "mode: 'x' must be one of"),
    ],
)
def test_a_file_that_is_refused(text: str, name: str, message: str, tmp_path: Path) -> None:
    """Exit status 2, and one line with the file."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    done = call(*(["agent"] if name == "tidegate" else []), f"--config={path}", name=name)
    assert done.exit_code == 2
    assert message in done.output
    assert str(path) in done.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--proxy-mode=userspace"], "--proxy-mode: 'userspace' must be one of"),
        (["--config=/nowhere.yaml"], "/nowhere.yaml: No such file"),
        (["extra"], "unexpected extra argument"),
        (["--nope"], "No such option"),
        (["--hostname-override= ", "--manifests=/tmp"], "cannot be blank"),
        (["--manifests=/tmp", "--kubeconfig=/k"], "give one of them"),
        (["--write-config-to=/nowhere/x"], "--write-config-to /nowhere/x: No such file"),
        (["--oom-score-adj=-2000"], "--oom-score-adj: -2000 must be within"),
        (["--kube-api-burst=x"], "not a valid integer"),
    ],
)
def test_wrong_usage(args: list[str], message: str) -> None:
    """Exit status 2 and what is wrong, before anything is touched."""
    done = call(*args)
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("args", "name", "said"),
    [
        (["--version"], "kube-proxy", f"Kubernetes v1.36.0+tidegate-{__version__}\n"),
        (
            ["agent", "--version"],
            "tidegate",
            f"Tidegate {__version__}, in place of kube-proxy 1.36\n",
        ),
    ],
)
def test_the_version(args: list[str], name: str, said: str) -> None:
    """`kube-proxy --version` is what installers read; both say whose it is."""
    done = call(*args, name=name)
    assert (done.exit_code, done.output) == (0, said)


def test_called_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link named kube-proxy to the program is enough."""
    from lb.cli import main  # noqa: PLC0415

    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kube-proxy", "--nope"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("kube-proxy: No such option")
