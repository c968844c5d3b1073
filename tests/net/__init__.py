"""Tests with real sockets in namespaces and cgroups of their own."""
