"""`tidegate sysdump`: one archive with all that a bug report needs, and no secret.

Each part is gathered by itself; what cannot be had says why, in its place. Never in it: tokens,
keys, certificates, kubeconfigs, environment variables, command lines, objects of the cluster other
than what the maps hold.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bpf import libbpf, tc
from bpf.pins import Pins
from lb import __version__
from lb.check import report
from lb.client import ask
from lb.errors import TidegateError
from lb.looking import rows

SHOWN = ("services", "backends", "flows", "affinity", "limits", "drops", "maps")
_LIBRARIES = ("click", "kubernetes", "msgspec", "prometheus-client", "pyroute2", "pyyaml", "rich")
_LOG_LINES = 5000
_IN_A_POD = "The log of an agent in a pod: kubectl logs --namespace kube-system POD\n"

_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL),
    re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?"),  # a JSON web token
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"),
    re.compile(
        r"(?i)(?<![\w-])((?:client-key|client-certificate|certificate-authority)-data|token|password"
        r"|passwd|secret|api-?key|authorization)(\"?\s*[:=]\s*\"?)(?!bearer )[^\s\",;}]+"
    ),
)


def without_secrets(text: str) -> str:
    """The text with everything that looks like a credential blotted out. Pure."""
    for pattern in _SECRETS[:4]:
        text = pattern.sub("[left out]", text)
    return _SECRETS[4].sub(r"\1\2[left out]", text)


def sysdump(target: Path, bpffs: Path, api_socket: Path, *, log: Path | None = None) -> list[str]:
    """Writes the archive, readable by its owner alone; the names in it. Raises OSError."""
    parts = gathered(bpffs, api_socket, log)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in parts.items():
            raw = without_secrets(text).encode(errors="replace")
            entry = tarfile.TarInfo(f"tidegate-sysdump/{name}")
            entry.size, entry.mode = len(raw), 0o600
            archive.addfile(entry, io.BytesIO(raw))
    return list(parts)


def gathered(bpffs: Path, api_socket: Path, log: Path | None) -> dict[str, str]:
    """Every part by its file's name."""
    parts: dict[str, Callable[[], Any]] = {
        "versions.json": versions,
        "check.json": lambda: report(None),
        "status.json": lambda: ask(api_socket, "/status"),
        "verify.json": lambda: ask(api_socket, "/verify"),
        "programs.json": lambda: programs(bpffs),
        "pins.txt": lambda: pins(bpffs),
        "log.txt": lambda: log_of(log),
        "network.txt": network,
    }
    for what in SHOWN:
        parts[f"show-{what}.json"] = _rows_of(what, bpffs, api_socket)
    return {name: _written(make) for name, make in parts.items()}


def _rows_of(what: str, bpffs: Path, api_socket: Path) -> Callable[[], Any]:
    return lambda: rows(what, bpffs, api_socket)


def _written(make: Callable[[], Any]) -> str:
    try:
        found = make()
    except (TidegateError, OSError, ValueError, subprocess.SubprocessError) as error:
        return f"could not be had: {error}\n"
    return found if isinstance(found, str) else json.dumps(found, indent=1) + "\n"


def versions() -> Mapping[str, Any]:
    """Of Tidegate, the kernel, the system, Python and the libraries."""
    found: dict[str, Any] = {
        "tidegate": __version__,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": _release(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _release() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def programs(bpffs: Path) -> list[dict[str, Any]]:
    """Every pinned program and link, and the filters of devices."""
    found: list[dict[str, Any]] = []
    for path in sorted((bpffs / "programs").glob("*/*")):
        descriptor = libbpf.open_pin(str(path))
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        kept = ("prog_tag", "memlock", "prog_id", "run_cnt", "recursion_misses", "verified_insns")
        libbpf.close(descriptor)
        if "prog_tag" not in info:  # the table that a build's programs hand over by
            continue
        lines = [line.split(":\t") for line in info.splitlines()]
        found.append(
            {"program": f"{path.parent.name}/{path.name}"}
            | {line[0]: line[1] for line in lines if line[0] in kept}
        )
    held = tc.attached(*tc.carriers())
    found += [{"device": device, "filters": filters} for device, filters in held.items()]
    return found


def pins(bpffs: Path) -> str:
    """The names of all pins."""
    folder = Pins(bpffs).folder
    return "".join(f"{path.relative_to(folder)}\n" for path in sorted(folder.rglob("*")))


def log_of(log: Path | None) -> str:
    """The end of the agent's log: of a file, or of the service manager's journal."""
    if log is not None:
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]) + "\n"
    said = _run("journalctl", "--quiet", "--unit=tidegate", f"--lines={_LOG_LINES}", "--no-pager")
    return f"{said}\n{_IN_A_POD}"


def network() -> str:
    """Devices, addresses, routes and qdiscs of this network namespace."""
    questions = (
        ("ip", "-details", "link"), ("ip", "address"), ("ip", "route", "show", "table", "all"),
        ("ip", "-6", "route", "show", "table", "all"), ("ip", "neighbour"), ("tc", "qdisc"),
    )  # fmt: skip
    return "\n".join(f"$ {' '.join(one)}\n{_run(*one)}" for one in questions)


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be had: {error}\n"
    return done.stdout + done.stderr
