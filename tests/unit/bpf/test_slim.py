"""Parts of packages without the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bpf.slim import later, slim


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose `__init__` has a constant, and one part with another."""
    folder = tmp_path / "a_heavy_one"
    folder.mkdir()
    (folder / "__init__.py").write_text("HEAVY = 1\n")
    (folder / "part.py").write_text("LIGHT = 2\ndef made(x): return x + LIGHT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_part_is_imported_without_the_rest(package: str) -> None:
    """Also by `from package import part`."""
    slim(package)
    assert import_module(f"{package}.part").LIGHT == 2
    assert "HEAVY" not in vars(sys.modules[package])
    names: dict[str, object] = {}
    exec(f"from {package} import part", names)
    assert names["part"] is sys.modules[f"{package}.part"]
    assert "HEAVY" not in vars(sys.modules[package])


def test_the_rest_is_there_for_who_asks(package: str) -> None:
    """Then `__init__` runs; what is not in it either is an AttributeError, as ever."""
    slim(package)
    names: dict[str, object] = {}
    exec(f"from {package} import HEAVY", names)
    assert names["HEAVY"] == 1
    with pytest.raises(AttributeError, match="no attribute 'NOTHING'"):
        _ = sys.modules[package].NOTHING


def test_a_package_that_is_loaded_stays_as_it_is(package: str) -> None:
    """Whoever came first has it whole."""
    whole = import_module(package)
    slim(package)
    assert sys.modules[package] is whole


def test_a_package_that_is_not_there() -> None:
    """It is said as by `import`."""
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        slim("no_such_package")


def test_a_module_is_loaded_by_the_first_call(package: str) -> None:
    """And by `import` not."""
    slim(package)
    later(f"{package}.part", "made")
    made = import_module(f"{package}.part").made
    assert not hasattr(sys.modules[f"{package}.part"], "LIGHT")
    assert made(3) == 5
    assert import_module(f"{package}.part").LIGHT == 2


def test_the_agent_loads_only_what_it_calls() -> None:
    """Neither pyroute2's database nor the models of kubernetes; those who ask get the real ones."""
    source = """
import sys
import lb.agent, lb.sources.kubernetes
heavy = ("pydantic", "requests", "kubernetes.client.models", "pyroute2.ndb", "pyroute2.conntrack")
print([name for name in heavy if name in sys.modules])
from kubernetes.client import ApiClient, Configuration
print(type(ApiClient(configuration=Configuration())).__module__)
from pyroute2 import Conntrack
print(Conntrack.__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[]", "kubernetes.client.api_client", "pyroute2.conntrack"]
