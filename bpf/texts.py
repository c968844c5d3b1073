"""Every text that is compiled, and what is loaded of it. Not for where it is attached.

All texts know all tables; the agent has those compiled side by side that it needs.
"""

from __future__ import annotations

from bpf.link import GUARD, SOCKET_HOOKS
from bpf.module import Program, Text

_SCHED_CLS, _XDP, _SOCK_OPS = 3, 6, 13  # enum bpf_prog_type

LB_IN = Program("lb_in", _SCHED_CLS, -1)
LB_OUT = Program("lb_out", _SCHED_CLS, -1)
POD_IN = Program("pod_in", _SCHED_CLS, -1)
LB_XDP = Program("lb_xdp", _XDP, 37)  # BPF_XDP

TAILS = (
    Program("lb_odd_in", _SCHED_CLS, -1, tail=0),
    Program("lb_odd_out", _SCHED_CLS, -1, tail=1),
    Program("lb_icmp", _SCHED_CLS, -1, tail=2),
    Program("lb_flow", _SCHED_CLS, -1, tail=3),
    Program("lb_answer", _SCHED_CLS, -1, tail=4),
    Program("lb_unwrap", _SCHED_CLS, -1, tail=5),
    Program("lb_begin", _SCHED_CLS, -1, tail=6),
    Program("lb_dsr", _SCHED_CLS, -1, tail=7),
    Program("lb_unmark", _SCHED_CLS, -1, tail=8),
    Program("lb_return", _SCHED_CLS, -1, tail=9),
    Program("lb_pass", _SCHED_CLS, -1, tail=10),
)
"""What LB_IN, LB_OUT and POD_IN hand over to, by enum tail of bpf/tail.h."""

_OUTSIDE = ("lb_odd_out", "lb_unwrap", "lb_dsr", "lb_unmark", "lb_return", "lb_pass")
"""On devices where outside traffic enters alone."""

SOCK = Text("sock.c", (*SOCKET_HOOKS, GUARD))
LB = Text("lb.c", (LB_OUT, LB_IN, *TAILS))
POD = Text("pod.c", (POD_IN, *(one for one in TAILS if one.name not in _OUTSIDE)))
LOCAL_LB = Text(LB.source, LB.programs, (("LOCAL_DEVICE", "1"),))
FOREIGN_POD = Text(POD.source, POD.programs, (("LOCAL_DEVICE", "0"),))
"""The same for devices that detectLocalMode says are pods', or are not."""
XDP = Text("xdp.c", (LB_XDP,))
LEAVING = Text(LB.source, (LB_OUT,))
"""What a packet meets that only leaves by a device: a part of LB."""
EXPLAIN_FRONTEND = Program("explain_frontend", _SCHED_CLS, -1)
EXPLAIN_CONNECT = Program("explain_connect", _SCHED_CLS, -1)
EXPLAIN = Text("explain.c", (EXPLAIN_FRONTEND, EXPLAIN_CONNECT))
"""Attached nowhere: for `bpf.trial`."""

POD_BBR = Program("pod_bbr", _SOCK_OPS, 3)  # BPF_CGROUP_SOCK_OPS
BBR = Text("bbr.c", (POD_BBR,))

EDT_NAME = Program("edt_name", _SCHED_CLS, -1)
EDT_POD = Program("edt_pod", _SCHED_CLS, -1)
EDT_OUT = Program("edt_out", _SCHED_CLS, -1)
EDT = {
    scope: Text("edt.c", (EDT_OUT, EDT_POD, EDT_NAME), (("SCOPE_ALL", number),))
    for scope, number in (("node", "0"), ("all", "1"))
}
"""By --bandwidth-scope."""
