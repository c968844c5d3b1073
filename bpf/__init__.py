"""The programs in C, and the Python that knows the kernel; it knows nothing of Kubernetes."""

from bpf.slim import slim

slim("pyroute2")  # before any of us imports a part of it
