"""The suite on another kernel: a virtual machine with Debian's own, under emulation."""
