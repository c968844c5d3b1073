"""Every text that is compiled, and what is loaded of it. Not for where it is attached.

All texts know all tables; the agent has those compiled side by side that it needs.
"""

from __future__ import annotations

from bpf.link import GUARD, SOCKET_HOOKS
from bpf.module import Program, Text

_SCHED_CLS, _XDP = 3, 6  # enum bpf_prog_type

LB_IN = Program("lb_in", _SCHED_CLS, -1)
LB_OUT = Program("lb_out", _SCHED_CLS, -1)
POD_IN = Program("pod_in", _SCHED_CLS, -1)
LB_XDP = Program("lb_xdp", _XDP, 37)  # BPF_XDP

SOCK = Text("sock.c", (*SOCKET_HOOKS, GUARD))
LB = Text("lb.c", (LB_OUT, LB_IN))
POD = Text("pod.c", (POD_IN,))
XDP = Text("xdp.c", (LB_XDP,))
