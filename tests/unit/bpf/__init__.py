"""The binding to the kernel; what needs root and a kernel is marked bpf."""
