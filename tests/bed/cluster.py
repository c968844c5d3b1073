"""A small cluster in namespaces and cgroups of its own: built, shared, and gone without a trace."""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from tests.bed import network
from tests.bed.claim import Claim, sweep
from tests.bed.host import Host
from tests.bed.node import Node
from tests.bed.process import BedError
from tests.bed.servers import ServerHost

_serial = itertools.count(1)
_open: list[Cluster] = []
_terminated = False
os.register_at_fork(after_in_child=_open.clear)  # a child's end is not the owner's


class Client(ServerHost):
    """A host outside of the cluster, behind the router."""


class Router(Host):
    """The router between the client and the nodes, in the namespace of the wire."""


class Cluster:
    """Nodes n1 to n`nodes` and a client outside, joined by the wire; pods come by `Node.pod`.

    Its name starts with the owner's process id, so clusters stand side by side. What dead owners
    left is removed on entry. Left in any way, also by SIGINT, SIGTERM or the interpreter's end,
    it leaves nothing; after SIGKILL the next cluster does it.
    """

    def __init__(self, nodes: int = 1, name: str | None = None) -> None:
        self.claim = Claim(f"tg{os.getpid()}-{name or next(_serial)}")
        self.nodes = [Node(self.claim, number) for number in range(1, nodes + 1)]
        self.client = Client(self.claim, "client", "client", network.CLIENT)
        self.router = Router(self.claim, "wire", "wire", network.ROUTER)
        self._kept = False

    @property
    def name(self) -> str:
        """Unique on this machine: the prefix of its namespaces."""
        return self.claim.name

    def keep(self) -> None:
        """Leave it up when the block ends; `python -m tests.bed NAME` takes it down."""
        self.claim.keep()
        self._kept = True

    def __enter__(self) -> Self:
        sweep()
        self.claim.take()
        _open.append(self)
        _catch_sigterm()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def route(self, prefixes: network.Pair, node: Node) -> None:
        """Lead traffic for these addresses, or prefixes, from outside to a node."""
        self.claim.enter("wire", network.wire_routes(prefixes, node.addresses))

    def close(self) -> None:
        """Take everything down, unless it is to be kept; again is harmless."""
        if self not in _open:
            return
        if self._kept:
            self.claim.release()
        else:
            self.claim.remove()
            for host in (self.client, self.router, *self.nodes):
                host.reap()
        _open.remove(self)
        _pass_on_sigterm()

    def _build(self) -> None:
        claim, wire = self.claim, self.router.namespace
        hosts = [self.router, self.client, *self.nodes]
        names = [host.namespace for host in hosts]
        claim.build("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))
        claim.directory.mkdir()
        claim.bpffs.mkdir()
        claim.build("mount", "-t", "bpf", "bpf", str(claim.bpffs))
        for host in hosts:
            host.make_folders()
        claim.enter("wire", network.wire())
        claim.enter("client", network.client(wire))
        for node in self.nodes:
            claim.enter(node.name, network.node(node.number, len(self.nodes), wire))
            (node.group / "pods").mkdir()
            (claim.bpffs / node.name).mkdir()
        claim.enter("wire", network.wire_ports(len(self.nodes)))


def _catch_sigterm() -> None:
    """Let SIGTERM unwind the stack as SIGINT does; a handler of the program's own stays."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    global _terminated  # noqa: PLW0603
    _terminated = True
    raise KeyboardInterrupt


def _pass_on_sigterm() -> None:
    """Once nothing is left to clean, SIGTERM does what it would have done."""
    if _open or signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _terminated:
        signal.raise_signal(signal.SIGTERM)


@atexit.register
def _close_all() -> None:
    for cluster in reversed(_open.copy()):
        with suppress(BedError):
            cluster.close()
