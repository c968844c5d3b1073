"""Tests of `bandwidth`."""
