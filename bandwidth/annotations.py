"""The two annotations of a pod, and what they allow. Pure."""

from __future__ import annotations

from enum import StrEnum

from bandwidth import quantity

LEAST, MOST = 1_000, 10**15
"""Bits per second: 1 kbit/s to 1 Pbit/s, as kubelet has it (pkg/util/bandwidth/utils.go)."""


class Direction(StrEnum):
    """Which way, as the pod sees it."""

    EGRESS = "egress"
    INGRESS = "ingress"

    @property
    def annotation(self) -> str:
        """Its name in a pod's metadata."""
        return f"kubernetes.io/{self}-bandwidth"


def bits(text: str) -> int:
    """Bits per second of an annotation's value. Raises ValueError: why it is none."""
    value = quantity.parse(text)
    if value < LEAST:
        raise ValueError("is below 1k (1 kbit/s)")
    if value > MOST:
        raise ValueError("is above 1P (1 Pbit/s)")
    return value
