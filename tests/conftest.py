"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the rule.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a virtual machine begins at once, beside all else."""
    items.sort(key=lambda item: "tests/vm/" not in item.nodeid)
