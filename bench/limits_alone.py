"""`python -m bench.limits_alone BPFFS MANIFESTS NODE SCOPE`: pod bandwidth without an agent.

All of it but services, whose programs an emulated machine would take minutes to verify.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from bpf import netlink
from bpf.pins import Pins, mount
from lb.config import Settings
from lb.limits.manager import Bandwidth
from lb.model import Change
from lb.sources import Report
from lb.sources.manifests import ManifestSource
from tests.bed.agent import PROGRAMS


class Nobody:
    """An inbox that has no use for anything."""

    def changed(self, changes: Sequence[Change]) -> None:
        """No."""

    def synced(self) -> None:
        """No."""

    def report(self, report: Report) -> None:
        """No."""


def main() -> None:
    """Until it is ended."""
    bpffs, manifests, node, scope = sys.argv[1:]
    settings = Settings(
        node_name=node, cgroup=Path("/"), bpffs=Path(bpffs), api_socket=Path(bpffs) / "none",
        manifests=Path(manifests), bandwidth="auto", bandwidth_scope=scope,
    )  # fmt: skip
    mount(settings.bpffs)
    pins = Pins(settings.bpffs, PROGRAMS)
    pins.make(settings.sizes)
    bandwidth = Bandwidth(settings, pins)
    bandwidth.follow(netlink.default_devices())
    bandwidth.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ManifestSource(settings.manifests or Path()).run(bandwidth.beside(Nobody()), Event())


if __name__ == "__main__":
    main()
