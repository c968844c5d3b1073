"""Tests of single modules: no I/O, milliseconds."""
