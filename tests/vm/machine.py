"""Boots a kernel on this machine's own files (virtme-ng, QEMU) and runs tests or a program inside.

Emulated, so some twenty times slower: for correctness, never for timing. The root file system
is read-only inside; results come back through one folder that is not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / ".venv" / "kernel"
"""Debian's linux-image, unpacked by `make setup`."""
COMPILED = ROOT / ".pytest_cache" / "programs-of-machine"
"""The data path, compiled here (`tests.vm.compiled`)."""
BOOT_SECONDS = 120.0
PATIENCE = "8"
"""By how much the bed waits longer for what it starts."""

_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "kmod": "kmod", "busybox": "busybox-static"}

_INSIDE = """\
exec > {folder}/console 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TIDEGATE_PATIENCE={patience}
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TIDEGATE_PROGRAMS={compiled}
export HYPOTHESIS_STORAGE_DIRECTORY={folder}/hypothesis
ip link set lo up
cd {root}
uname -r > {folder}/release
{command}
"""
_TESTS = """\
{python} -m pytest -v --durations=0 --timeout=0 -p no:cacheprovider \
--junitxml={folder}/results.xml {tests}
"""


class Result(NamedTuple):
    """What ran inside: the kernel's release, and what became of the tests."""

    release: str
    passed: list[str]
    failures: dict[str, str]
    skipped: dict[str, str]
    console: str

    def of(self, *files: str) -> Result:
        """What became of the tests in these files, and of the machine."""
        bad = {one: text for one, text in self.failures.items() if _file(one) in (*files, "")}
        skipped = {one: why for one, why in self.skipped.items() if _file(one) in files}
        passed = [one for one in self.passed if _file(one) in files]
        return Result(self.release, passed, bad, skipped, self.console)

    def failed(self) -> list[str]:
        """What failed, as pytest takes it; nothing where the machine itself did."""
        parts = (one.partition("::") for one in self.failures)
        return [f"{file.replace('.', '/')}.py::{name}" for file, _, name in parts if file]

    def after(self, again: Result) -> Result:
        """With what failed here and passed there."""
        mended = [one for one in self.failures if one in again.passed]
        still = {one: text for one, text in self.failures.items() if one not in mended}
        told = f"{self.console}\n{again.console}"
        return self._replace(passed=[*self.passed, *mended], failures=still, console=told)


def _file(case: str) -> str:
    """The file of a test; nothing where the machine itself failed."""
    return case.partition("::")[0].rpartition(".")[2]


def missing() -> str:
    """What this machine lacks to boot one, in a line; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if os.uname().machine != "x86_64":
        return "needs x86-64: the kernel that is unpacked is one"
    absent = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if absent:
        return f"needs the packages {' '.join(absent)}"
    if _vng() is None:
        return "needs virtme-ng"
    return "" if kernel() is not None else "needs a kernel in .venv/kernel: make setup"


def kernel() -> Path | None:
    """The kernel image; None: `make setup` could not get one."""
    return next(iter(sorted(KERNELS.glob("boot/vmlinuz-*"))), None)


def _vng() -> str | None:
    beside = Path(sys.executable).parent / "vng"
    return str(beside) if beside.exists() else shutil.which("vng")


def run(tests: list[str], folder: Path, *, timeout: float) -> Result:
    """Boot, run these tests (pytest's arguments), read the results. Raises TimeoutExpired."""
    tested = _TESTS.format(python=sys.executable, folder=folder, tests=" ".join(tests))
    said = boot(tested, folder, timeout=timeout)
    return _read(folder, said)


def boot(command: str, folder: Path, *, timeout: float) -> str:
    """Boot, run a line of shell in the repository's root; what it printed.

    `folder` is the only one that can be written to. Raises TimeoutExpired.
    """
    image, vng = kernel(), _vng()
    assert image is not None
    assert vng is not None
    release = image.name.removeprefix("vmlinuz-")
    compile_ = [sys.executable, "-m", "tests.vm.compiled", str(COMPILED), release]
    subprocess.run(compile_, cwd=ROOT, check=True)
    script = folder / "inside"
    text = _INSIDE.format(
        folder=folder,
        patience=PATIENCE,
        compiled=COMPILED,
        root=ROOT,
        command=command,
    )
    script.write_text(f"#!/bin/bash\n{text}")
    script.chmod(0o755)
    machine = [vng, "--disable-kvm", "--force-9p", "--run", str(image), "--memory", "2G"]
    machine += ["--cpus", "2", f"--rwdir={folder}", "--exec", str(script)]
    path = f"{Path(vng).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        machine, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as started:  # fmt: skip
        try:
            said, _ = started.communicate(timeout=BOOT_SECONDS + timeout)
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)  # the machine itself is a grandchild
            raise
    console = folder / "console"
    return console.read_text(errors="replace") if console.exists() else said


def _read(folder: Path, console: str) -> Result:
    release, results = folder / "release", folder / "results.xml"
    if not results.exists():
        return Result("", [], {"::boot": "no results came back"}, {}, console)
    passed, failures, skipped = [], {}, {}
    for case in ET.parse(results).iter("testcase"):  # our own file
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [one for one in case if one.tag in ("failure", "error")]
        left = case.find("skipped")
        if bad:
            failures[name] = bad[0].text or bad[0].get("message") or ""
        elif left is not None:
            skipped[name] = left.get("message") or ""
        else:
            passed.append(name)
    return Result(release.read_text().strip(), passed, failures, skipped, console)
