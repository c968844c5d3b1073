"""Manifests in, map contents out: golden text."""
