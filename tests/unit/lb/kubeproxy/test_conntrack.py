"""What becomes of `conntrack.*`: kube-proxy's arithmetic, for those fields that somebody set."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from lb import host
from lb.kubeproxy.conntrack import CAP, MAX, wanted
from lb.kubeproxy.decode import read
from lb.kubeproxy.effective import effective

ESTABLISHED, CLOSE_WAIT = (
    f"nf_conntrack_tcp_timeout_{name}" for name in ("established", "close_wait")
)
CASES = [
    # flags, CPUs, settings
    ({}, 8, {}),
    ({"conntrack-max-per-core": 1000, "conntrack-min": 0}, 8, {MAX: 8000}),
    ({"conntrack-max-per-core": 1000}, 8, {MAX: 131072}),
    ({"conntrack-min": 200_000}, 2, {MAX: 200_000}),
    ({"conntrack-max-per-core": 32768}, 64, {MAX: CAP}),
    ({"conntrack-max-per-core": 32768, "conntrack-min": 2 * CAP}, 64, {MAX: CAP}),
    ({"conntrack-max-per-core": 1, "conntrack-min": 2 * CAP}, 64, {MAX: 2 * CAP}),
    ({"conntrack-max-per-core": 0, "conntrack-min": 5}, 8, {}),
    (
        {"conntrack-tcp-timeout-established": "24h", "conntrack-tcp-timeout-close-wait": "1h"},
        8,
        {ESTABLISHED: 86400, CLOSE_WAIT: 3600},
    ),
    ({"conntrack-tcp-timeout-established": "0s", "conntrack-tcp-timeout-close-wait": "0s"}, 8, {}),
    ({"conntrack-tcp-be-liberal": True}, 8, {"nf_conntrack_tcp_be_liberal": 1}),
    ({"conntrack-tcp-be-liberal": False}, 8, {}),
    (
        {"conntrack-udp-timeout": "40s", "conntrack-udp-timeout-stream": "3m"},
        8,
        {"nf_conntrack_udp_timeout": 40, "nf_conntrack_udp_timeout_stream": 180},
    ),
]


@pytest.mark.parametrize(("flags", "cpus", "settings"), CASES)
def test_settings(flags: dict[str, Any], cpus: int, settings: dict[str, int]) -> None:
    """By flags, and by a file that says the same."""
    found = effective(flags, None)
    assert wanted(found.configuration.conntrack, found.asked, cpus) == settings
    assert found.lines == ()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("conntrack: null", {}),
        ("conntrack: {maxPerCore: null, min: null, tcpCloseWaitTimeout: null}", {}),
        ("conntrack: {maxPerCore: 32768, min: 131072}", {MAX: 262144}),
        ("conntrack: {maxPerCore: 0}", {}),
        ("conntrack: {tcpCloseWaitTimeout: 1h0m0s, udpTimeout: 0s}", {CLOSE_WAIT: 3600}),
    ],
)
def test_a_field_without_a_value_asks_for_nothing(text: str, settings: dict[str, int]) -> None:
    """Installers write `null` where they have no wish; a value that is the default is a wish."""
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    found = effective({}, read((head + text).encode()))
    assert wanted(found.configuration.conntrack, found.asked, 8) == settings


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Its settings as files: 262144 connections, 1024 buckets."""
    (tmp_path / MAX).write_text("262144\n")
    (tmp_path / CLOSE_WAIT).write_text("60\n")
    (tmp_path / "hashsize").write_text("1024\n")
    return tmp_path


def put(kernel: Path, settings: dict[str, int], **more: Any) -> list[str]:
    """What could not be set."""
    return host.set_conntrack(settings, settings=kernel, buckets=kernel / "hashsize", **more)


def value(kernel: Path, name: str) -> str:
    """A setting's text."""
    return (kernel / name).read_text().strip()


def test_written_once(kernel: Path) -> None:
    """Buckets grow with the connections, and never shrink; what has its value is not written."""
    written: list[Path] = []

    def write(path: Path, text: str) -> None:
        written.append(path)
        path.write_text(text)

    settings = {MAX: 40_000, CLOSE_WAIT: 3600}
    assert put(kernel, settings, write=write) == []
    assert [path.name for path in written] == [MAX, "hashsize", CLOSE_WAIT]
    assert [value(kernel, one) for one in (MAX, CLOSE_WAIT, "hashsize")] == [
        "40000", "3600", "10000",
    ]  # fmt: skip
    written.clear()
    assert put(kernel, settings, write=write) == []
    assert written == []
    assert put(kernel, {MAX: 20_000}, write=write) == []
    assert value(kernel, "hashsize") == "10000"
    assert put(kernel, {CLOSE_WAIT: 60}, write=write) == []
    assert value(kernel, MAX) == "20000"


def test_what_is_refused_is_told_and_the_rest_goes_on(kernel: Path) -> None:
    """In one line each, in the status too; nobody ends for it."""

    def write(path: Path, text: str) -> None:
        if path.name == MAX:
            raise OSError(errno.EROFS, "Read-only file system")
        path.write_text(text)

    settings = {MAX: 40_000, CLOSE_WAIT: 3600}
    (fault,) = put(kernel, settings, write=write)
    assert fault == f"could not set {kernel / MAX} to 40000: Read-only file system"
    assert value(kernel, CLOSE_WAIT) == "3600"
    assert value(kernel, "hashsize") == "1024"
    assert host.feature(settings, [fault]) == {"conntrack": {"state": "degraded", "reason": fault}}
    assert host.feature(settings, []) == {"conntrack": {"state": "on"}}
    assert host.feature({}, []) == {}


def test_without_connection_tracking_it_is_told(tmp_path: Path) -> None:
    """A kernel without it has no such settings."""
    (fault,) = put(tmp_path / "none", {CLOSE_WAIT: 3600})
    assert "No such file" in fault
