"""The masquerade matrix: 27 flows in 4 configurations, as kube-proxy has them and as Tidegate has.

Two letters an outcome. First, whom the flow may meet: A, all endpoints that the internal view has;
L, those on this node. Then, as whom it is seen: `-`, its own address; M, the node's; H, its own by
an endpoint here and the node's by one elsewhere. kube-proxy's columns are those of its own test,
TestInternalExternalMasquerade (pkg/proxy/iptables and nftables, Kubernetes 1.36).
"""

from __future__ import annotations

from typing import NamedTuple

CONFIGURATIONS = ("usual", "no detector", "masqueradeAll", "masqueradeAll, no detector")
"""With a way to know pods, without one, and each with all cluster IP traffic masqueraded."""

WHY = {
    "socket": "a socket connects to the backend itself: answers need no way back through the node",
    "known": "pods are known by their sockets, where kube-proxy cannot tell them from others",
    "near": "what goes to a backend here is answered through here, and needs no other address",
    "back": "what goes to a backend elsewhere is answered through here only with this address",
}
"""Why an outcome of Tidegate's is another."""

_TABLE = """
pod     cluster   -         A-  A-  AM  AM    A-  socket
pod     cluster   internal  L-  L-  LM  LM    L-  socket
pod     cluster   external  A-  A-  AM  AM    A-  socket
node    cluster   -         AM  A-  AM  AM    AM  back
node    cluster   internal  LM  L-  LM  LM    LM  back
node    cluster   external  AM  A-  AM  AM    AM  back
outside cluster   -         AM  A-  AM  AM    AH  near back
outside cluster   internal  LM  L-  LM  LM    L-  near
outside cluster   external  AM  A-  AM  AM    AH  near back
pod     node_port -         AM  AM  AM  AM    A-  socket
pod     node_port internal  AM  AM  AM  AM    A-  socket
pod     node_port external  A-  L-  A-  L-    A-  known
node    node_port -         AM  AM  AM  AM    AM
node    node_port internal  AM  AM  AM  AM    AM
node    node_port external  AM  AM  AM  AM    AM
outside node_port -         AM  AM  AM  AM    AH  near
outside node_port internal  AM  AM  AM  AM    AH  near
outside node_port external  L-  L-  L-  L-    L-
pod     balancer  -         AM  AM  AM  AM    A-  socket
pod     balancer  internal  AM  AM  AM  AM    A-  socket
pod     balancer  external  A-  L-  A-  L-    A-  known
node    balancer  -         AM  AM  AM  AM    AM
node    balancer  internal  AM  AM  AM  AM    AM
node    balancer  external  AM  AM  AM  AM    AM
outside balancer  -         AM  AM  AM  AM    AH  near
outside balancer  internal  AM  AM  AM  AM    AH  near
outside balancer  external  L-  L-  L-  L-    L-
"""


class Flow(NamedTuple):
    """Who asks what. `policy`: which of the two policies is Local, if any."""

    source: str
    frontend: str
    policy: str


class Row(NamedTuple):
    """`kube_proxy`: by CONFIGURATIONS. `tidegate`: in all of them. `why`: keys of WHY."""

    flow: Flow
    kube_proxy: tuple[str, ...]
    tidegate: str
    why: tuple[str, ...]


def _row(line: str) -> Row:
    source, frontend, policy, *rest = line.split()
    flow = Flow(source, frontend, policy.strip("-"))
    return Row(flow, tuple(rest[:4]), rest[4], tuple(rest[5:]))


ROWS = tuple(map(_row, _TABLE.strip().splitlines()))
