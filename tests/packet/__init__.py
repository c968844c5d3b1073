"""Packet tests: one packet in, one verdict and one packet out, by program test runs."""
